"""Muon makes a matrix's step orthogonal, and leaves what is no matrix to AdamW."""

import pytest
import torch
from torch import nn

from sd_train.config import TrainerConfig
from sd_train.muon import Muon, inner_matrices, orthogonalized
from sd_train.optim import build_optimizer, lr_scale, set_learning_rate


@pytest.mark.parametrize("shape", [(3, 40, 64), (2, 96, 33), (1, 32, 32)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.manual_seed(0))
    made = orthogonalized(matrices).double()
    values = torch.linalg.svdvals(made)
    assert 0.4 < values.min() <= values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices.double(), full_matrices=False)
    cosine = (made * (u @ v)).sum((1, 2)) / (made.norm(dim=(1, 2)) * (u @ v).norm(dim=(1, 2)))
    assert cosine.min() > 0.95


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 64, 3), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 4, 3), nn.Embedding(50, 64)
    )


def test_embeddings_thin_matrices_and_vectors_are_left_to_adamw() -> None:
    layers = network()
    assert set(inner_matrices(layers)) == {layers[0].weight, layers[1].weight}
    optimizer = build_optimizer({"net": layers}, TrainerConfig(steps=1, optimizer="muon"))
    assert isinstance(optimizer, Muon)
    orthogonal = [g for g in optimizer.param_groups if g["orthogonal"]]
    assert [id(p) for g in orthogonal for p in g["params"]] == [
        id(layers[0].weight), id(layers[1].weight)
    ]  # fmt: skip


def test_a_step_has_the_length_of_adamws_and_others_get_adamws_own() -> None:
    layers, peers = network(), network()
    settings = {"steps": 1, "learning_rate": 1e-2, "weight_decay": 0.0}
    ours = build_optimizer({"net": layers}, TrainerConfig(**settings, optimizer="muon"))
    theirs = build_optimizer({"net": peers}, TrainerConfig(**settings))
    before = {name: p.detach().clone() for name, p in layers.named_parameters()}
    for module, optimizer in ((layers, ours), (peers, theirs)):
        generator = torch.manual_seed(1)
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    for (name, one), other in zip(layers.named_parameters(), peers.parameters(), strict=True):
        if name in ("0.weight", "1.weight"):
            change = (one.detach() - before[name]).square().mean().sqrt()
            # The root mean square of an orthogonal matrix is 1 / sqrt(its longer side).
            assert float(change) == pytest.approx(0.2 * 1e-2, rel=0.3)
        else:
            assert torch.equal(one, other)


def test_it_learns_directions_that_are_seldom_asked_for_sooner_than_adamw() -> None:
    """Inputs that are a hundred times weaker along some directions, none of them an axis."""
    generator = torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn((64, 64), generator=generator))[0]
    inputs = torch.logspace(0, -2, 64)[:, None] * turn
    target = torch.randn((64, 64), generator=generator) / 8

    def error_after(optimizer: str) -> float:
        layer = nn.Linear(64, 64, bias=False)
        nn.init.zeros_(layer.weight)
        settings = {"steps": 150, "learning_rate": 2e-2, "lr_schedule": "cosine"}
        config = TrainerConfig(**settings, optimizer=optimizer, weight_decay=0.0)
        made = build_optimizer({"net": layer}, config)
        batches = torch.manual_seed(1)
        for step in range(150):
            set_learning_rate(made, lr_scale(step, config))
            x = torch.randn((64, 64), generator=batches) @ inputs
            loss = (layer(x) - x @ target.T).square().mean()
            made.zero_grad()
            loss.backward()
            made.step()
        return float((layer.weight - target).square().mean())

    assert error_after("muon") < 0.5 * error_after("adamw")
