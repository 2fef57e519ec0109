import pytest
import torch

from sd_checkpoint import CheckpointError, load_into
from sd_textenc import (
    CLIPTextConfig,
    CLIPTextEncoder,
    Conditioning,
    TextEncoder,
    TextEncoderError,
    Tokenizer,
    clip_tokenizer,
    scenes,
    train_tokenizer,
    vit_l14,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a cat on a mat", "two black dogs"], context_length=12)


def small(tokenizer: Tokenizer, projection_dim: int | None = None) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_layers=3,
        num_heads=4,
        max_positions=12,
        projection_dim=projection_dim,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def build(tokenizer: Tokenizer, clip_skip: int = 0) -> CLIPTextEncoder:
    torch.manual_seed(0)
    return CLIPTextEncoder(small(tokenizer), tokenizer, clip_skip)


def test_the_sd1_encoder_has_as_many_parameters_as_the_real_one() -> None:
    with torch.device("meta"):
        encoder = CLIPTextEncoder(vit_l14(), clip_tokenizer())
    assert sum(p.numel() for p in encoder.parameters()) == 123_060_480


def test_the_embedded_models_encoder_has_the_size_it_promises(tokenizer: Tokenizer) -> None:
    encoder = CLIPTextEncoder(scenes(tokenizer.vocab_size), tokenizer)
    conditioning = encoder.encode(["a cat"])
    assert conditioning.hidden_states.shape == (1, 12, 256)
    assert len(encoder.model.encoder.layers) == 4


def test_it_is_a_text_encoder_and_gives_states_and_a_pooled_vector(tokenizer: Tokenizer) -> None:
    encoder = build(tokenizer)
    conditioning = encoder.encode(["a cat", "two dogs", ""])
    assert isinstance(encoder, TextEncoder)
    assert isinstance(conditioning, Conditioning)
    assert conditioning.hidden_states.shape == (3, 12, 32)
    assert conditioning.pooled is not None
    assert conditioning.pooled.shape == (3, 32)


def test_the_pooled_vector_is_the_last_state_at_the_first_end_token(tokenizer: Tokenizer) -> None:
    conditioning = build(tokenizer).encode(["a cat", "two black dogs"])
    assert conditioning.pooled is not None
    assert torch.equal(conditioning.pooled[0], conditioning.hidden_states[0, 3])
    assert torch.equal(conditioning.pooled[1], conditioning.hidden_states[1, 4])


def test_a_config_with_the_legacy_end_id_pools_at_the_end_token(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    written = small(tokenizer).to_diffusers() | {"bos_token_id": 0, "eos_token_id": 2}
    legacy = CLIPTextEncoder(CLIPTextConfig.from_diffusers(written), tokenizer)
    plain = build(tokenizer)
    assert torch.equal(legacy.encode(["a cat"]).pooled, plain.encode(["a cat"]).pooled)


def test_a_projection_makes_the_pooled_vector_its_size(tokenizer: Tokenizer) -> None:
    encoder = CLIPTextEncoder(small(tokenizer, projection_dim=8), tokenizer)
    assert encoder.encode(["a cat"]).pooled.shape == (1, 8)
    assert "text_projection.weight" in encoder.file_state_dict()
    load_into(encoder.model, encoder.model_state_dict(encoder.file_state_dict()), what="test")


def test_no_token_sees_a_later_one(tokenizer: Tokenizer) -> None:
    encoder = build(tokenizer)
    first, second = encoder.encode(["a cat on a mat", "a cat on two dogs"]).hidden_states
    assert torch.allclose(first[:4], second[:4], atol=1e-6)
    assert not torch.allclose(first[4], second[4], atol=1e-3)


def test_clip_skip_changes_the_states_and_not_the_pooled_vector(tokenizer: Tokenizer) -> None:
    plain, skipping = build(tokenizer), build(tokenizer, clip_skip=1)
    a, b = plain.encode(["a cat"]), skipping.encode(["a cat"])
    assert not torch.allclose(a.hidden_states, b.hidden_states, atol=1e-3)
    assert torch.equal(a.pooled, b.pooled)


def test_clip_skip_equals_a_shorter_stack_of_the_same_weights(tokenizer: Tokenizer) -> None:
    skipping, short = build(tokenizer, clip_skip=1), build(tokenizer)
    short.model.encoder.layers = short.model.encoder.layers[:-1]
    expected = short.encode(["a cat on a mat"]).hidden_states
    assert torch.equal(skipping.encode(["a cat on a mat"]).hidden_states, expected)


@pytest.mark.parametrize("clip_skip", [0, 1])
def test_every_weight_that_has_a_part_in_the_states_learns(
    tokenizer: Tokenizer, clip_skip: int
) -> None:
    encoder = build(tokenizer, clip_skip).train()
    encoder.encode(["a cat on a mat"]).hidden_states.square().sum().backward()
    left_out = {f"encoder.layers.{n}." for n in range(3 - clip_skip, 3)}
    for name, parameter in encoder.model.named_parameters():
        outside = any(name.startswith(layer) for layer in left_out)
        assert (parameter.grad is None) == outside, name


def test_a_training_step_lowers_a_loss(tokenizer: Tokenizer) -> None:
    encoder = build(tokenizer).train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)
    target = torch.randn(1, 12, 32)
    losses = []
    for _ in range(5):
        loss = (encoder.encode(["a cat"]).hidden_states - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("clip_skip", [0, 1])
def test_it_trains_under_bfloat16_autocast_with_full_precision_weights(
    tokenizer: Tokenizer, clip_skip: int
) -> None:
    encoder = build(tokenizer, clip_skip).train()
    expected = encoder.encode(["a cat"]).hidden_states
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = encoder.encode(["a cat"]).hidden_states
    states.float().square().sum().backward()
    assert encoder.model.embeddings.token_embedding.weight.grad.dtype == torch.float32
    assert torch.allclose(states.float(), expected, atol=0.1)


def test_weights_in_half_precision_encode(tokenizer: Tokenizer) -> None:
    encoder = build(tokenizer)
    expected = encoder.encode(["a cat"]).hidden_states
    states = encoder.to(torch.bfloat16).encode(["a cat"]).hidden_states
    assert states.dtype == torch.bfloat16
    assert torch.allclose(states.float(), expected, atol=0.1)


def test_built_on_the_meta_device_and_loaded_it_equals_the_original(tokenizer: Tokenizer) -> None:
    original = build(tokenizer)
    with torch.device("meta"):
        copy = CLIPTextEncoder(small(tokenizer), tokenizer)
    load_into(copy.model, copy.model_state_dict(original.file_state_dict()), what="text_encoder")
    copy = copy.to("cpu")
    prompts = ["a cat", "two black dogs on a mat"]
    assert torch.equal(copy.encode(prompts).hidden_states, original.encode(prompts).hidden_states)


def test_files_carry_the_classic_names_and_old_position_ids_are_passed_over(
    tokenizer: Tokenizer,
) -> None:
    encoder = build(tokenizer)
    tensors = dict(encoder.file_state_dict())
    assert "text_model.encoder.layers.0.self_attn.q_proj.weight" in tensors
    assert all(name.startswith("text_model.") for name in tensors)
    old = tensors | {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    assert encoder.model_state_dict(old).keys() == encoder.model.state_dict().keys()
    bare = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    assert encoder.model_state_dict(bare).keys() == encoder.model.state_dict().keys()


def test_weights_of_another_family_are_refused(tokenizer: Tokenizer) -> None:
    encoder = build(tokenizer)
    strange = encoder.model_state_dict({"down_blocks.0.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="unexpected"):
        load_into(encoder.model, strange, what="text_encoder")


@pytest.mark.parametrize("projection_dim", [None, 8])
def test_a_config_comes_back_from_its_file(
    tokenizer: Tokenizer, projection_dim: int | None
) -> None:
    config = small(tokenizer, projection_dim)
    assert CLIPTextConfig.from_diffusers(config.to_diffusers()) == config


def test_the_config_of_an_sd1_folder_is_vit_l14_with_its_legacy_ids() -> None:
    written = {
        "architectures": ["CLIPTextModel"],
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "quick_gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "projection_dim": 768,
        "vocab_size": 49408,
    }
    config = CLIPTextConfig.from_diffusers(written)
    assert config.to_diffusers().items() >= written.items()
    assert config.projection_dim is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "t5"}, "model_type is 't5'"),
        ({"num_attention_heads": 5}, "not a multiple of num_heads 5"),
        ({"num_hidden_layers": 0}, "num_layers is 0"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
    ],
)
def test_an_impossible_config_is_one_clear_line(
    tokenizer: Tokenizer, change: dict[str, object], message: str
) -> None:
    with pytest.raises(TextEncoderError, match=message):
        CLIPTextConfig.from_diffusers(small(tokenizer).to_diffusers() | change)


def test_a_tokenizer_or_a_skip_that_does_not_fit_is_an_error(tokenizer: Tokenizer) -> None:
    larger = train_tokenizer(["many more words than the other one has"], context_length=12)
    with pytest.raises(TextEncoderError, match="the tokenizer has"):
        CLIPTextEncoder(small(tokenizer), larger)
    longer = train_tokenizer(["a cat"], context_length=13)
    with pytest.raises(TextEncoderError, match="context is 13"):
        CLIPTextEncoder(small(tokenizer), longer)
    for clip_skip in (-1, 3):
        with pytest.raises(TextEncoderError, match="from 0 to 2"):
            CLIPTextEncoder(small(tokenizer), tokenizer, clip_skip)
