from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from torch import Tensor

from sd_checkpoint import CheckpointError, load_into
from sd_textenc import (
    CLIPTextConfig,
    OpenCLIPTextConfig,
    TextEncoderError,
    Tokenizer,
    build_text_encoder,
    clip_tokenizer,
    ldm_config,
    ldm_key_map,
    ldm_passes_over,
    ldm_tensors,
    train_tokenizer,
    vit_bigg14,
    vit_h14,
    vit_l14,
)
from tests.textenc.towers import clip_config, open_clip_config, tower


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a cat on a mat", "two black dogs"], context_length=12)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def folder_tensors(config: CLIPTextConfig, tokenizer: Tokenizer) -> dict[str, Tensor]:
    return dict(tower(config, tokenizer).file_state_dict())


def single_file(config: CLIPTextConfig, tokenizer: Tokenizer) -> dict[str, Tensor]:
    return dict(ldm_key_map(config).inverse().apply(folder_tensors(config, tokenizer)))


@pytest.mark.parametrize("projection_dim", [None, 24])
@pytest.mark.parametrize("kind", [clip_config, open_clip_config])
def test_every_tensor_goes_to_a_single_file_and_comes_back(
    tokenizer: Tokenizer, kind: Callable[..., CLIPTextConfig], projection_dim: int | None
) -> None:
    config = kind(tokenizer, projection_dim)
    folder = folder_tensors(config, tokenizer)
    file = ldm_key_map(config).inverse().apply(folder)
    again = ldm_tensors(config, file)
    assert again.keys() == folder.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in folder.items())


def test_an_open_clip_single_file_has_the_towers_own_names_and_shapes(
    tokenizer: Tokenizer,
) -> None:
    config = open_clip_config(tokenizer, 24)
    encoder = tower(config, tokenizer)
    file = single_file(config, tokenizer)
    own = {f"model.{name}": tensor for name, tensor in encoder.model.state_dict().items()}
    assert file.keys() == own.keys()
    assert all(torch.equal(file[name], tensor) for name, tensor in own.items())
    assert file["model.text_projection"].shape == (32, 24)


def test_an_sd1_single_file_has_transformers_names(tokenizer: Tokenizer) -> None:
    names = single_file(clip_config(tokenizer), tokenizer).keys()
    assert "transformer.text_model.encoder.layers.0.self_attn.q_proj.weight" in names
    assert all(name.startswith("transformer.text_model.") for name in names)


def test_an_old_sd1_file_without_text_model_in_its_names_is_read(tokenizer: Tokenizer) -> None:
    config = clip_config(tokenizer)
    file = single_file(config, tokenizer)
    old = {name.replace("text_model.", ""): tensor for name, tensor in file.items()}
    assert ldm_tensors(config, old).keys() == ldm_tensors(config, file).keys()
    assert ldm_config(shapes_of(old), num_heads=2).num_layers == 3


EXTRAS = {
    "transformer.text_model.embeddings.position_ids": torch.arange(12.0)[None],
    "transformer.text_projection.weight": torch.zeros(32, 32),
    "logit_scale": torch.zeros(()),
}


def test_what_has_no_part_in_encoding_is_passed_over_by_name(tokenizer: Tokenizer) -> None:
    config = clip_config(tokenizer)
    file = single_file(config, tokenizer)
    assert ldm_tensors(config, file | EXTRAS).keys() == ldm_tensors(config, file).keys()
    assert {n for n in file | EXTRAS if ldm_passes_over(config, n)} == EXTRAS.keys()
    with pytest.raises(CheckpointError, match="fit no rule"):
        ldm_tensors(config, file | {"model_ema.decay": torch.zeros(())})


def sd2_file(tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Return all that an SD 2 file holds: one layer and a projection more than is used."""
    whole = open_clip_config(tokenizer, 32)
    return single_file(whole, tokenizer) | {"model.logit_scale": torch.zeros(())}


def test_an_sd2_file_loses_its_last_layer_and_projection_once_and_no_more(
    tokenizer: Tokenizer,
) -> None:
    file = sd2_file(tokenizer)
    config = ldm_config(shapes_of(file), num_heads=2)
    folder = ldm_tensors(config, file)
    written = ldm_key_map(config).inverse().apply(folder)
    lost = file.keys() - written.keys()
    beyond = {name for name in file if name.startswith("model.transformer.resblocks.3.")}
    assert len(beyond) == 12
    assert lost == beyond | {"model.text_projection", "model.logit_scale"}
    assert ldm_config(shapes_of(written), num_heads=2) == config
    again = ldm_tensors(config, written)
    assert again.keys() == folder.keys()
    assert all(torch.equal(again[name], folder[name]) for name in folder)


def test_a_single_file_loads_into_the_encoder_it_describes(tokenizer: Tokenizer) -> None:
    file = sd2_file(tokenizer)
    config = ldm_config(shapes_of(file), num_heads=2)
    with torch.device("meta"):
        encoder = build_text_encoder(config, tokenizer)
    load_into(encoder.model, encoder.model_state_dict(ldm_tensors(config, file)), what="test")
    source = tower(open_clip_config(tokenizer, 32), tokenizer, 1)
    expected = source.encode(["a cat"]).hidden_states
    assert torch.allclose(encoder.eval().encode(["a cat"]).hidden_states, expected, atol=1e-6)


class Counting(Mapping[str, Tensor]):
    """Tensors that note which of them were read."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.read: list[str] = []

    def __getitem__(self, name: str) -> Tensor:
        self.read.append(name)
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def test_a_tensor_is_read_when_it_is_asked_for_and_those_passed_over_never(
    tokenizer: Tokenizer,
) -> None:
    file = sd2_file(tokenizer)
    config = ldm_config(shapes_of(file), num_heads=2)
    counting = Counting(file)
    tensors = build_text_encoder(config, tokenizer).model_state_dict(ldm_tensors(config, counting))
    assert "ln_final.weight" in tensors
    counting.read.clear()
    assert len(tensors) == len(list(tensors))
    assert counting.read == []
    assert tensors["ln_final.bias"].shape == (32,)
    assert counting.read == ["model.ln_final.bias"]
    dict(tensors)
    assert not any(ldm_passes_over(config, name) for name in counting.read)


def published(config: CLIPTextConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a single file that holds a published tower."""
    with torch.device("meta"):
        encoder = build_text_encoder(config, clip_tokenizer())
    return shapes_of(ldm_key_map(config).inverse().apply(encoder.file_state_dict()))


def test_the_published_towers_are_told_by_their_shapes() -> None:
    assert ldm_config(published(vit_l14())) == vit_l14()
    assert ldm_config(published(vit_h14())) == vit_h14()
    assert ldm_config(published(vit_bigg14()), projected=True) == vit_bigg14()


@pytest.mark.parametrize("projection", [{}, {"model.text_projection": (1024, 1024)}])
def test_a_vit_h_with_all_its_layers_is_told_with_and_without_its_projection(
    projection: dict[str, tuple[int, ...]],
) -> None:
    shapes = published(vit_h14())
    last = {n.replace(".22.", ".23."): s for n, s in shapes.items() if ".resblocks.22." in n}
    assert ldm_config(shapes | last | projection) == vit_h14()


def test_a_small_vocabulary_has_its_start_and_end_last(tokenizer: Tokenizer) -> None:
    for kind in (clip_config, open_clip_config):
        config = kind(tokenizer)
        told = ldm_config(shapes_of(single_file(config, tokenizer)), num_heads=2)
        assert told == config
        assert isinstance(told, OpenCLIPTextConfig) == isinstance(config, OpenCLIPTextConfig)


def test_shapes_that_tell_nothing_are_one_clear_line(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextEncoderError, match=r"lacks the text encoder's transformer\.emb"):
        ldm_config({"first_stage_model.quant_conv.weight": (8, 8, 1, 1)})
    file = single_file(open_clip_config(tokenizer), tokenizer)
    with pytest.raises(TextEncoderError, match="width is 32, no multiple of 64"):
        ldm_config(shapes_of(file))
    with pytest.raises(TextEncoderError, match=r"lacks the text encoder's model\.text_projection"):
        ldm_config(shapes_of(file), projected=True, num_heads=2)
