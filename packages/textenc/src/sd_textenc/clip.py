"""The CLIP text encoder of SD 1.x, SDXL's first and the embedded model's."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from sd_checkpoint import KeyMap
from sd_textenc.clip_layers import CLIPTextProjected, CLIPTextTransformer
from sd_textenc.config import CLIPTextConfig
from sd_textenc.keys import transformers_key_map
from sd_textenc.tokenizer import Tokenizer
from sd_textenc.tower import TextTower, own_device

Library = Literal["own", "transformers"]


class CLIPTextEncoder(TextTower):
    """Encode prompts with a CLIP whose weights have transformers' names.

    `model` is a `CLIPTextTransformer`, or a `CLIPTextProjected` where the config has a
    `projection_dim`. With `library="transformers"` it is transformers' CLIPTextModel or
    CLIPTextModelWithProjection instead, which has the same modules, weights and states and takes
    four seconds longer to import. `clip_skip` and `penultimate` are those of `TextTower`, and its
    errors.
    """

    def __init__(
        self,
        config: CLIPTextConfig,
        tokenizer: Tokenizer,
        clip_skip: int = 0,
        *,
        penultimate: bool = False,
        library: Library = "own",
    ):
        super().__init__(config, tokenizer, clip_skip, penultimate=penultimate)
        self.model: Any = _transformers(config) if library == "transformers" else _own(config)

    @property
    def body(self) -> Any:
        """What files call `text_model`: embeddings, layers and the final norm."""
        return self.model if self.config.projection_dim is None else self.model.text_model

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.body.embeddings.token_embedding.weight.device
        return device

    def _file_key_map(self) -> KeyMap:
        return transformers_key_map(self.config)

    def _run(self, token_ids: Tensor, num_left_out: int) -> tuple[Tensor, Tensor]:
        outputs = self.body(token_ids, output_hidden_states=num_left_out > 0)
        last: Tensor = outputs.last_hidden_state
        # hidden_states[-1] is the last layer's output before the final norm.
        return outputs.hidden_states[-1 - num_left_out] if num_left_out else last, last

    def _final_norm(self, hidden_states: Tensor) -> Tensor:
        normed: Tensor = self.body.final_layer_norm(hidden_states)
        return normed

    def _project(self, pooled: Tensor) -> Tensor:
        projected: Tensor = self.model.text_projection(pooled)
        return projected


def _own(config: CLIPTextConfig) -> nn.Module:
    if config.projection_dim is None:
        return CLIPTextTransformer(config)
    return CLIPTextProjected(config, config.projection_dim)


def _transformers(config: CLIPTextConfig) -> Any:
    # Imported here: transformers takes seconds, and the rest of this package needs none of it.
    from transformers import CLIPTextConfig as PeerConfig
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    if config.projection_dim is None:
        model = body = CLIPTextModel(PeerConfig(**config.to_diffusers()))
    else:
        model = CLIPTextModelWithProjection(PeerConfig(**config.to_diffusers()))
        body = model.text_model
    # No file holds this buffer: built on the meta device, nothing would ever fill it.
    body.embeddings.position_ids = torch.arange(
        config.max_positions, device=own_device(body.embeddings.position_ids)
    ).expand(1, -1)
    return model
