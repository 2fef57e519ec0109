import pytest
import torch

from sd_checkpoint import CheckpointError, Fuse, KeyMap, Rule, Split, beneath

RULES = (
    Rule("down.{}.block.{}.skip.{}", "down_blocks.{}.resnets.{}.conv_shortcut.{}"),
    Rule("down.{}.block.{}.{}.{}", "down_blocks.{}.resnets.{}.{}.{}"),
    Rule("attn.q.weight", "attention.to_q.weight", ("c_out c_in 1 1", "c_out c_in")),
    Rule("text.{*}", "text_model.{*}"),
)


def test_a_hole_carries_its_part_of_the_key_across() -> None:
    assert KeyMap(RULES).rename("down.3.block.0.conv1.bias") == "down_blocks.3.resnets.0.conv1.bias"


def test_a_starred_hole_carries_all_the_rest() -> None:
    assert KeyMap(RULES).rename("text.layers.0.mlp.fc1.bias") == "text_model.layers.0.mlp.fc1.bias"


def test_a_plain_hole_holds_one_part_only() -> None:
    with pytest.raises(CheckpointError, match=r"down\.3\.block\.0\.a\.b\.c"):
        KeyMap(RULES).rename("down.3.block.0.a.b.c")


def test_a_dot_in_a_pattern_is_a_dot() -> None:
    with pytest.raises(CheckpointError):
        KeyMap([Rule("a.b", "c")]).rename("axb")


def test_the_first_rule_that_fits_is_taken_both_ways() -> None:
    keys = KeyMap(RULES)
    renamed = keys.rename("down.1.block.0.skip.weight")
    assert renamed == "down_blocks.1.resnets.0.conv_shortcut.weight"
    assert keys.inverse().rename(renamed) == "down.1.block.0.skip.weight"


def test_a_map_and_its_inverse_give_back_names_shapes_and_values() -> None:
    tensors = {
        "attn.q.weight": torch.randn(4, 3, 1, 1),
        "down.0.block.1.norm1.weight": torch.randn(5),
        "down.0.block.1.skip.weight": torch.randn(5, 2, 1, 1),
    }
    keys = KeyMap(RULES)
    renamed = keys.apply(tensors)
    assert renamed["attention.to_q.weight"].shape == (4, 3)
    back = keys.inverse().apply(renamed)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in tensors.items())


def test_every_key_that_no_rule_fits_is_counted_and_eight_are_named() -> None:
    tensors = {f"alien.{i:02}": torch.zeros(1) for i in range(11)}
    with pytest.raises(CheckpointError, match=r"11 of 12 keys .*alien\.07 and 3 more$"):
        KeyMap(RULES).apply({**tensors, "attn.q.weight": torch.zeros(1, 1, 1, 1)})


def test_two_keys_of_one_name_are_an_error() -> None:
    keys = KeyMap([Rule("a.{}", "x.{}"), Rule("b.{}", "x.{}")])
    with pytest.raises(CheckpointError, match=r"two keys are renamed to x\.w"):
        keys.apply({"a.w": torch.zeros(1), "b.w": torch.zeros(1)})


def test_a_tensor_of_another_rank_than_declared_is_an_error_that_names_it() -> None:
    with pytest.raises(CheckpointError, match=r"attn\.q\.weight has shape \(4, 3\)"):
        dict(KeyMap(RULES).apply({"attn.q.weight": torch.zeros(4, 3)}))


def test_an_axis_that_should_have_length_one_and_has_not_is_an_error_that_names_it() -> None:
    with pytest.raises(CheckpointError, match=r"attn\.q\.weight has shape \(4, 3, 3, 3\)"):
        dict(KeyMap(RULES).apply({"attn.q.weight": torch.zeros(4, 3, 3, 3)}))


def test_rules_beneath_prefixes_with_and_without_holes() -> None:
    resnet = (Rule("in.{}", "norm1.{}"),)
    keys = KeyMap(
        [
            *beneath("up.1.block.{}", "up_blocks.0.resnets.{}", resnet),
            *beneath("mid", "mid_block.resnets.0", resnet),
        ]
    )
    assert keys.rename("up.1.block.2.in.bias") == "up_blocks.0.resnets.2.norm1.bias"
    assert keys.rename("mid.in.bias") == "mid_block.resnets.0.norm1.bias"


PACKED = (
    Split("blocks.{}.in_proj_{}", tuple(f"layers.{{}}.{part}_proj.{{}}" for part in "qkv")),
    Rule("blocks.{}.ln.{}", "layers.{}.norm.{}"),
)


def test_a_packed_tensor_is_cut_into_equal_parts_and_joined_again() -> None:
    tensors = {
        "blocks.0.in_proj_weight": torch.randn(6, 2),
        "blocks.0.in_proj_bias": torch.randn(6),
        "blocks.0.ln.weight": torch.randn(2),
    }
    cut = KeyMap(PACKED).apply(tensors)
    assert len(cut) == 7
    assert torch.equal(cut["layers.0.k_proj.weight"], tensors["blocks.0.in_proj_weight"][2:4])
    back = KeyMap(PACKED).inverse().apply(cut)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in tensors.items())


def test_a_missing_part_of_a_packed_tensor_is_named() -> None:
    parts = {f"layers.3.{part}_proj.bias": torch.zeros(2) for part in "qv"}
    with pytest.raises(CheckpointError, match=r"1 keys are missing .*layers\.3\.k_proj\.bias"):
        KeyMap(PACKED).inverse().apply(parts)


def test_parts_of_different_shapes_are_an_error_that_names_one() -> None:
    parts = {f"layers.3.{part}_proj.bias": torch.zeros(ord(part)) for part in "qkv"}
    with pytest.raises(CheckpointError, match=r"layers\.3\.q_proj\.bias has shape \(113,\)"):
        dict(KeyMap(PACKED).inverse().apply(parts))


def test_a_tensor_that_cannot_be_cut_evenly_is_an_error_that_names_it() -> None:
    renamed = KeyMap(PACKED).apply({"blocks.0.in_proj_bias": torch.zeros(7)})
    with pytest.raises(CheckpointError, match=r"in_proj_bias has shape \(7,\).* 3 equal parts"):
        dict(renamed)


def test_packed_rules_go_beneath_prefixes_like_others() -> None:
    keys = KeyMap(beneath("text", "text_model", [Fuse(("q", "k"), "qk")]))
    joined = keys.apply({"text.q": torch.zeros(1), "text.k": torch.ones(1)})
    assert joined["text_model.qk"].tolist() == [0, 1]


def test_tensors_are_read_only_when_they_are_asked_for() -> None:
    class Touchy(dict[str, torch.Tensor]):
        def __getitem__(self, key: str) -> torch.Tensor:
            raise AssertionError(f"{key} was read")

    renamed = KeyMap(RULES).apply(Touchy({"text.a": torch.zeros(1)}))
    assert list(renamed) == ["text_model.a"]
