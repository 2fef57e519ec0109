from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from sd_checkpoint import CheckpointError, load_into
from sd_textenc import (
    CLIPTextConfig,
    CLIPTextEncoder,
    OpenCLIPTextConfig,
    OpenCLIPTextEncoder,
    TextEncoder,
    TextEncoderError,
    TextTower,
    Tokenizer,
    build_text_encoder,
    clip_tokenizer,
    scenes,
    text_encoder_config,
    train_tokenizer,
    vit_bigg14,
    vit_h14,
    vit_l14,
)
from tests.textenc.towers import clip_config, open_clip_config, tower

PROMPTS = ["a cat", "two black dogs on a mat", ""]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a cat on a mat", "two black dogs"], context_length=12)


@pytest.mark.parametrize(
    ("config", "number"), [(vit_h14(), 340_387_840), (vit_bigg14(), 694_659_840)]
)
def test_the_published_towers_have_as_many_parameters_as_the_real_ones(
    config: OpenCLIPTextConfig, number: int
) -> None:
    with torch.device("meta"):
        encoder = build_text_encoder(config, clip_tokenizer("!"))
    assert sum(p.numel() for p in encoder.parameters()) == number


def test_the_whole_vit_h_has_the_size_of_open_clips_text_side() -> None:
    whole = replace(vit_h14(), num_layers=24, projection_dim=1024)
    with torch.device("meta"):
        encoder = build_text_encoder(whole, clip_tokenizer("!"))
    assert sum(p.numel() for p in encoder.parameters()) == 354_032_640


def test_it_is_a_text_encoder_with_the_sizes_of_its_config(tokenizer: Tokenizer) -> None:
    encoder = tower(open_clip_config(tokenizer, 24), tokenizer)
    conditioning = encoder.encode(PROMPTS)
    assert isinstance(encoder, OpenCLIPTextEncoder)
    assert isinstance(encoder, TextEncoder)
    assert conditioning.hidden_states.shape == (3, 12, 32)
    assert conditioning.pooled is not None
    assert conditioning.pooled.shape == (3, 24)


def test_without_a_projection_the_pooled_vector_is_the_last_state_at_the_end_token(
    tokenizer: Tokenizer,
) -> None:
    conditioning = tower(open_clip_config(tokenizer), tokenizer).encode(PROMPTS)
    assert conditioning.pooled is not None
    assert torch.equal(conditioning.pooled[0], conditioning.hidden_states[0, 3])


def test_an_added_token_with_a_greater_id_does_not_move_the_pooled_vector(
    tokenizer: Tokenizer,
) -> None:
    config = replace(open_clip_config(tokenizer), vocab_size=tokenizer.vocab_size + 1)
    encoder = tower(config, tokenizer)
    token_ids = tokenizer(["a cat"])
    token_ids[0, 1] = tokenizer.vocab_size
    conditioning = encoder.encode_tokens(token_ids)
    assert conditioning.pooled is not None
    assert torch.equal(conditioning.pooled[0], conditioning.hidden_states[0, 3])


@pytest.mark.parametrize("kind", [clip_config, open_clip_config])
def test_no_token_sees_a_later_one(
    tokenizer: Tokenizer, kind: Callable[..., CLIPTextConfig]
) -> None:
    encoder = tower(kind(tokenizer), tokenizer)
    first, second = encoder.encode(["a cat on a mat", "a cat on two dogs"]).hidden_states
    assert torch.allclose(first[:4], second[:4], atol=1e-6)
    assert not torch.allclose(first[4], second[4], atol=1e-3)


@pytest.mark.parametrize("kind", [clip_config, open_clip_config])
def test_penultimate_states_come_from_one_layer_before_and_bear_no_norm(
    tokenizer: Tokenizer, kind: Callable[..., CLIPTextConfig]
) -> None:
    config = kind(tokenizer, 24)
    bare, normed = tower(config, tokenizer, penultimate=True), tower(config, tokenizer, 1)
    a, b = bare.encode(PROMPTS), normed.encode(PROMPTS)
    norm = normed.model.ln_final if hasattr(normed.model, "ln_final") else None
    norm = norm or normed.model.text_model.final_layer_norm
    assert torch.equal(norm(a.hidden_states), b.hidden_states)
    assert not torch.allclose(a.hidden_states, b.hidden_states, atol=1e-2)
    assert torch.equal(a.pooled, b.pooled)


def test_clip_skip_can_be_set_and_is_held_to_the_layers_that_are_there(
    tokenizer: Tokenizer,
) -> None:
    encoder = tower(open_clip_config(tokenizer), tokenizer, penultimate=True)
    before = encoder.encode(PROMPTS).hidden_states
    encoder.clip_skip = 2
    assert not torch.allclose(encoder.encode(PROMPTS).hidden_states, before, atol=1e-3)
    for number in (-1, 3):
        with pytest.raises(TextEncoderError, match=f"clip_skip is {number}; .* from 0 to 2"):
            encoder.clip_skip = number
    assert encoder.clip_skip == 2


def test_a_tokenizer_with_a_shorter_context_than_the_tower_is_served() -> None:
    short = train_tokenizer(["a cat on a mat", "two black dogs"], context_length=8)
    long = train_tokenizer(["a cat on a mat", "two black dogs"], context_length=12)
    config = open_clip_config(long)
    expected = tower(config, long).encode(["a cat"]).hidden_states
    states = tower(config, short).encode(["a cat"]).hidden_states
    assert torch.allclose(states, expected[:, :8], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_give_states_in_half_precision(
    tokenizer: Tokenizer, dtype: torch.dtype
) -> None:
    encoder = tower(open_clip_config(tokenizer, 24), tokenizer)
    with torch.no_grad():
        expected = encoder.encode(PROMPTS)
        conditioning = encoder.to(dtype).encode(PROMPTS)
    assert conditioning.pooled is not None
    assert conditioning.hidden_states.dtype == conditioning.pooled.dtype == dtype
    assert torch.allclose(conditioning.hidden_states.float(), expected.hidden_states, atol=0.1)
    assert torch.allclose(conditioning.pooled.float(), expected.pooled, atol=0.1)


def test_it_trains_under_bfloat16_autocast_with_full_precision_weights(
    tokenizer: Tokenizer,
) -> None:
    encoder = tower(open_clip_config(tokenizer), tokenizer, penultimate=True).train()
    expected = encoder.encode(PROMPTS).hidden_states
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = encoder.encode(PROMPTS).hidden_states
    states.float().square().sum().backward()
    assert torch.allclose(states.float(), expected, atol=0.1)
    for name, parameter in encoder.model.named_parameters():
        behind = name.startswith(("transformer.resblocks.3.", "ln_final."))
        assert (parameter.grad is None) == behind, name


def test_checkpointed_gradients_are_the_same(tokenizer: Tokenizer) -> None:
    plain, saving = (tower(open_clip_config(tokenizer), tokenizer).train() for _ in range(2))
    saving.model.set_grad_checkpointing()
    for encoder in (plain, saving):
        encoder.encode(PROMPTS).hidden_states.square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-5)


@pytest.mark.parametrize("projection_dim", [None, 24])
def test_built_on_the_meta_device_and_loaded_it_equals_the_original(
    tokenizer: Tokenizer, projection_dim: int | None
) -> None:
    config = open_clip_config(tokenizer, projection_dim)
    original = tower(config, tokenizer)
    with torch.device("meta"):
        copy = build_text_encoder(config, tokenizer)
    load_into(copy.model, copy.model_state_dict(original.file_state_dict()), what="test")
    a, b = original.encode(PROMPTS), copy.eval().encode(PROMPTS)
    assert torch.equal(a.hidden_states, b.hidden_states)
    assert torch.equal(a.pooled, b.pooled)
    assert not any(t.is_meta for t in (*copy.parameters(), *copy.buffers()))


def test_files_carry_transformers_names_and_forms_without_the_prefix_are_read(
    tokenizer: Tokenizer,
) -> None:
    encoder = tower(open_clip_config(tokenizer, 24), tokenizer)
    with torch.device("meta"):
        peer = CLIPTextEncoder(encoder.config, tokenizer, library="transformers").model
    tensors = dict(encoder.file_state_dict())
    assert {k: t.shape for k, t in tensors.items()} == {
        k: t.shape for k, t in peer.state_dict().items()
    }
    old = tensors | {"text_model.embeddings.position_ids": torch.arange(12.0)[None]}
    bare = {name.removeprefix("text_model."): tensor for name, tensor in old.items()}
    for file in (old, bare):
        again = encoder.model_state_dict(file)
        assert again.keys() == encoder.model.state_dict().keys()
        assert all(torch.equal(again[k], t) for k, t in encoder.model.state_dict().items())


def test_weights_of_another_family_are_refused(tokenizer: Tokenizer) -> None:
    encoder = tower(open_clip_config(tokenizer), tokenizer)
    with pytest.raises(CheckpointError, match="fit no rule"):
        encoder.model_state_dict({"down_blocks.0.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="unexpected"):
        load_into(
            encoder.model,
            encoder.model_state_dict(
                tower(open_clip_config(tokenizer, 24), tokenizer).file_state_dict()
            ),
            what="test",
        )


SD2 = {
    "architectures": ["CLIPTextModel"],
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "model_type": "clip_text_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
    "vocab_size": 49408,
}
SDXL_2 = SD2 | {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}


def test_the_configs_of_published_folders_are_the_presets_with_their_legacy_ids() -> None:
    legacy = {"bos_token_id": 0, "eos_token_id": 2}
    assert text_encoder_config(SD2) == replace(vit_h14(), **legacy)
    assert text_encoder_config(SDXL_2) == replace(vit_bigg14(), **legacy)
    assert text_encoder_config(vit_l14().to_diffusers()) == vit_l14()


def test_a_gelu_tower_with_its_own_vocabulary_stays_with_transformers(
    tokenizer: Tokenizer,
) -> None:
    config = scenes(tokenizer.vocab_size)
    again = text_encoder_config(config.to_diffusers())
    assert again == config
    assert type(again) is CLIPTextConfig
    more = text_encoder_config(SD2 | {"vocab_size": 49410})
    assert isinstance(more, OpenCLIPTextConfig)


@pytest.mark.parametrize("config", [vit_h14(), vit_bigg14()])
def test_a_config_comes_back_from_its_file(config: OpenCLIPTextConfig) -> None:
    assert text_encoder_config(config.to_diffusers()) == config


def test_the_configs_type_decides_who_computes(tokenizer: Tokenizer) -> None:
    classes: list[tuple[CLIPTextConfig, type[TextTower]]] = [
        (clip_config(tokenizer), CLIPTextEncoder),
        (open_clip_config(tokenizer), OpenCLIPTextEncoder),
    ]
    for config, encoder_class in classes:
        encoder = build_text_encoder(config, tokenizer, 1, penultimate=True)
        assert type(encoder) is encoder_class
        assert (encoder.clip_skip, encoder.penultimate) == (1, True)
