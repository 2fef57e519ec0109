"""The names that a text encoder's weights have in files."""

from sd_checkpoint import KeyMap, Rule
from sd_textenc.config import CLIPTextConfig


def file_key_map(config: CLIPTextConfig) -> KeyMap:
    """Return the map from a file's keys to those of `CLIPTextEncoder.model`.

    Files of SD 1.x, diffusers and transformers 4 say `text_model.encoder.layers.0...`;
    transformers 5 has dropped `text_model.` from CLIPTextModel (it still opens such files, but
    writes them without), and keeps it in CLIPTextModelWithProjection. Both forms are read, and
    the inverse gives the first, which every version opens.
    """
    if config.projection_dim is None:
        return KeyMap([Rule("text_model.{*}", "{*}"), Rule("{*}", "{*}")])
    return KeyMap(
        [
            Rule("text_model.{*}", "text_model.{*}"),
            Rule("text_projection.{}", "text_projection.{}"),
        ]
    )
