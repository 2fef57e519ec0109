"""Embedding files, and their vectors in a text tower."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sd_adapters import (
    Adapter,
    AdapterError,
    Embedding,
    Origin,
    TextualInversion,
    load_embedding,
    save_embedding,
)
from tests.adapters.web_ui import assert_web_ui_opens

ORIGIN = Origin(step=20, sd_checkpoint="abcd", sd_checkpoint_name="sd15")
ONE = Embedding(name="dog", vectors=(torch.randn(3, 8),), origin=ORIGIN)
TWO = Embedding(name="dog", vectors=(torch.randn(2, 8), torch.randn(2, 12)), origin=ORIGIN)


def same(a: Embedding, b: Embedding) -> bool:
    return a.name == b.name and all(map(torch.equal, a.vectors, b.vectors))


@pytest.mark.parametrize(
    ("file", "layout", "embedding"),
    [
        ("dog.pt", "webui", ONE),
        ("any.bin", "diffusers", ONE),
        ("any.safetensors", "diffusers", ONE),
        ("dog.safetensors", "kohya", ONE),
        ("dog.pt", "kohya", ONE),
        ("dog.safetensors", "webui", TWO),
        ("dog.safetensors", "diffusers", TWO),
        ("dog.pt", "webui", TWO),
    ],
)
def test_file_read_back_is_the_same(
    tmp_path: Path, file: str, layout: str, embedding: Embedding
) -> None:
    save_embedding(tmp_path / file, embedding, layout)
    loaded = load_embedding(tmp_path / file)
    assert same(loaded, embedding)
    assert loaded.num_vectors == embedding.num_vectors
    if file.endswith(".safetensors") or (layout == "webui" and embedding is ONE):
        assert loaded.origin == ORIGIN
    if not file.endswith(".safetensors"):
        assert_web_ui_opens(tmp_path / file)


def test_each_layout_has_the_keys_of_its_readers(tmp_path: Path) -> None:
    save_embedding(tmp_path / "a.pt", ONE)
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert content.keys() == {
        "string_to_token",
        "string_to_param",
        "name",
        "step",
        "sd_checkpoint",
        "sd_checkpoint_name",
    }
    assert torch.equal(content["string_to_param"]["*"], ONE.vectors[0])
    for layout, key in (("diffusers", "dog"), ("kohya", "emb_params")):
        save_embedding(tmp_path / "a.safetensors", ONE, layout)
        assert load_file(tmp_path / "a.safetensors").keys() == {key}
    save_embedding(tmp_path / "a.safetensors", TWO)
    assert load_file(tmp_path / "a.safetensors").keys() == {"clip_l", "clip_g"}


def test_vectors_cut_out_of_a_table_are_written_without_it(tmp_path: Path) -> None:
    table = torch.randn(5000, 8)
    save_embedding(tmp_path / "a.pt", Embedding(name="dog", vectors=(table[3:5],)))
    assert (tmp_path / "a.pt").stat().st_size < 4000
    assert torch.equal(load_embedding(tmp_path / "a.pt").vectors[0], table[3:5])


def test_others_files_are_read(tmp_path: Path) -> None:
    vector = torch.randn(8, dtype=torch.float16)
    torch.save({"<my-dog>": vector}, tmp_path / "learned_embeds.bin")
    loaded = load_embedding(tmp_path / "learned_embeds.bin")
    assert loaded.name == "<my-dog>"
    assert torch.equal(loaded.vectors[0], vector.float()[None])
    assert load_embedding(tmp_path / "learned_embeds.bin", "rex").name == "rex"
    # The very first kind, with parameters in a torch.nn.ParameterDict.
    params = nn.ParameterDict({"*": nn.Parameter(torch.ones(2, 8))})
    torch.save({"string_to_token": {"*": 265}, "string_to_param": params}, tmp_path / "first.pt")
    assert load_embedding(tmp_path / "first.pt").name == "first"
    # The web UI goes by the file's name.
    torch.save(
        {"string_to_param": {"*": nn.Parameter(torch.ones(2, 8))}, "name": "inside", "step": 3},
        tmp_path / "outside.pt",
    )
    loaded = load_embedding(tmp_path / "outside.pt")
    assert (loaded.name, loaded.origin.step, loaded.widths) == ("outside", 3, (8,))
    save_file({"clip_g": torch.ones(1, 12)}, tmp_path / "half.safetensors", {"author": "me"})
    assert load_embedding(tmp_path / "half.safetensors").name == "half"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"<a>": torch.ones(2, 8), "<b>": torch.ones(2, 8)}, "2 terms.*<a>, <b>"),
        ({"<a>": torch.ones(2, 8), "other": "text"}, "other"),
        ({"string_to_param": {"*": torch.ones(2, 8), "+": torch.ones(2, 8)}}, r"\*, \+"),
        ({"string_to_param": {"*": torch.ones(2, 8)}, "mystery": 1}, "mystery"),
        ({"string_to_param": {"*": torch.ones(2, 8, 3)}}, r"\(2, 8, 3\)"),
        ({"clip_l": torch.ones(2, 8), "clip_g": torch.ones(3, 12)}, "the same for all"),
        ({"string_to_param": None}, "not one term"),
        ([torch.ones(2, 8)], "a list"),
    ],
)
def test_what_is_no_embedding_is_one_line(tmp_path: Path, content: object, match: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(AdapterError, match=match) as caught:
        load_embedding(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)


def test_another_familys_embedding_is_one_line() -> None:
    ONE.require_widths([8])
    TWO.require_widths([8, 12])
    with pytest.raises(AdapterError, match=r"'dog'.*width 8,.*768 and 1280"):
        ONE.require_widths([768, 1280])


class Tower(nn.Module):
    """Stands for a text tower."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(10, 8)
        self.position_embedding = nn.Embedding(5, 8)

    def forward(self, token_ids: Tensor) -> Tensor:
        return self.token_embedding(token_ids) + self.position_embedding.weight


IDS = torch.tensor([[1, 10, 11, 12, 2], [3, 3, 13, 14, 9]])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_ids_beyond_the_table_mean_the_vectors_while_injected(order: tuple[int, int]) -> None:
    tower = Tower()
    known = torch.tensor([[1, 0, 9, 4, 2]])
    before, weights = tower(known), tower.token_embedding.weight.detach().clone()
    vectors = torch.randn(5, 8)
    adapters: list[Adapter] = [
        TextualInversion(vectors[:3], first_id=10),
        TextualInversion(vectors[3:], first_id=13),
    ]
    for adapter in adapters:
        adapter.inject(tower)
    expected = torch.cat([weights, vectors])[IDS] + tower.position_embedding.weight
    assert torch.equal(tower(IDS), expected)
    assert torch.equal(tower(known), before)
    assert tower.state_dict()["token_embedding.weight"].shape == (10, 8)
    adapters[order[0]].eject()
    with pytest.raises(IndexError):
        tower(IDS)
    adapters[order[1]].eject()
    assert torch.equal(tower(known), before)
    assert torch.equal(tower.token_embedding.weight, weights)
    assert not tower.token_embedding._forward_hooks
    assert not tower.token_embedding._forward_pre_hooks


def test_only_the_new_vectors_learn() -> None:
    tower = Tower().requires_grad_(False)
    adapter = TextualInversion(torch.randn(3, 8), first_id=10)
    adapter.inject(tower)
    tower(torch.tensor([[1, 10, 11, 12, 2]])).square().sum().backward()
    assert tower.token_embedding.weight.grad is None
    assert adapter.vectors.grad.abs().sum(dim=1).gt(0).all()


def test_misuse_is_one_line() -> None:
    tower = Tower()
    with pytest.raises(AdapterError, match="width 9, and the text encoder 8"):
        TextualInversion(torch.ones(1, 9), first_id=10).inject(tower)
    with pytest.raises(AdapterError, match="has 10 words"):
        TextualInversion(torch.ones(1, 8), first_id=9).inject(tower)
    with pytest.raises(AdapterError, match="2 token embeddings"):
        TextualInversion(torch.ones(1, 8), first_id=10).inject(nn.ModuleList([Tower(), Tower()]))
    adapter = TextualInversion(torch.ones(1, 8), first_id=10)
    adapter.inject(tower)
    with pytest.raises(AdapterError, match="injected already"):
        adapter.inject(tower)
    with pytest.raises(AdapterError, match="cannot be fused"):
        adapter.fuse()
