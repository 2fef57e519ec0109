import pytest
import torch

from sd_checkpoint import CheckpointError, KeyMap, Rule, beneath

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
        KeyMap(RULES).apply({"attn.q.weight": torch.zeros(4, 3)})


def test_an_axis_that_should_have_length_one_and_has_not_is_an_error_that_names_it() -> None:
    with pytest.raises(CheckpointError, match=r"attn\.q\.weight has shape \(4, 3, 3, 3\)"):
        KeyMap(RULES).apply({"attn.q.weight": torch.zeros(4, 3, 3, 3)})


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
