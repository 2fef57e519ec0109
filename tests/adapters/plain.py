"""Each kind of LoRA layer as a file has it, and plainly what it adds to a weight."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Parts = dict[str, Tensor]
OUT, IN, KERNEL = 8, 12, (3, 3)


@dataclass(frozen=True)
class Case:
    """A file's layer for a target, and the same addition restated."""

    name: str
    target: Callable[[], nn.Linear | nn.Conv2d]
    shapes: Mapping[str, tuple[int, ...]]
    addition: Callable[[Parts], Tensor]
    scale: float


def linear() -> nn.Linear:
    return nn.Linear(IN, OUT)


def conv() -> nn.Conv2d:
    return nn.Conv2d(IN, OUT, KERNEL, stride=2, padding=1)


def pointwise() -> nn.Conv2d:
    return nn.Conv2d(IN, OUT, 1)


def parts_of(case: Case, seed: int = 0, alpha: float = 3.0) -> Parts:
    generator = torch.Generator().manual_seed(seed)
    parts = {
        name: torch.randn(shape, generator=generator) / 3 for name, shape in case.shapes.items()
    }
    return parts | {"alpha": torch.tensor(alpha)}


def tucker(core: Tensor, out: Tensor, into: Tensor) -> Tensor:
    """Sum the core's kernels, each weighed by a column of either matrix."""
    weight = torch.zeros(out.shape[1], into.shape[1], *core.shape[2:])
    for i in range(core.shape[0]):
        for j in range(core.shape[1]):
            weight += torch.outer(out[i], into[j])[:, :, None, None] * core[i, j]
    return weight


def kron(small: Tensor, large: Tensor) -> Tensor:
    """Put the large one, times each number of the small one, in a grid."""
    rows = [torch.cat([number * large for number in row], dim=1) for row in small]
    return torch.cat(rows, dim=0)


CASES = [
    Case(
        "lora",
        linear,
        {"lora_down.weight": (4, IN), "lora_up.weight": (OUT, 4)},
        lambda p: p["lora_up.weight"] @ p["lora_down.weight"],
        3 / 4,
    ),
    Case(
        "lora of a 1x1 convolution, kept as a linear's",
        pointwise,
        {"lora_down.weight": (4, IN), "lora_up.weight": (OUT, 4)},
        lambda p: (p["lora_up.weight"] @ p["lora_down.weight"])[:, :, None, None],
        3 / 4,
    ),
    Case(
        "lora of a linear, kept as a 1x1 convolution's",
        linear,
        {"lora_down.weight": (4, IN, 1, 1), "lora_up.weight": (OUT, 4, 1, 1)},
        lambda p: p["lora_up.weight"][:, :, 0, 0] @ p["lora_down.weight"][:, :, 0, 0],
        3 / 4,
    ),
    Case(
        "locon",
        conv,
        {"lora_down.weight": (4, IN, 3, 3), "lora_up.weight": (OUT, 4, 1, 1)},
        lambda p: sum(
            p["lora_up.weight"][:, r, :, :, None] * p["lora_down.weight"][r] for r in range(4)
        ),
        3 / 4,
    ),
    Case(
        "locon in tucker's form",
        conv,
        {
            "lora_down.weight": (4, IN, 1, 1),
            "lora_mid.weight": (4, 4, 3, 3),
            "lora_up.weight": (OUT, 4, 1, 1),
        },
        lambda p: tucker(
            p["lora_mid.weight"],
            p["lora_up.weight"][:, :, 0, 0].T,
            p["lora_down.weight"][..., 0, 0],
        ),
        3 / 4,
    ),
    Case(
        "loha",
        linear,
        {"hada_w1_a": (OUT, 2), "hada_w1_b": (2, IN), "hada_w2_a": (OUT, 2), "hada_w2_b": (2, IN)},
        lambda p: (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"]),
        3 / 2,
    ),
    Case(
        "loha of a convolution",
        conv,
        {
            "hada_w1_a": (OUT, 2),
            "hada_w1_b": (2, IN * 9),
            "hada_w2_a": (OUT, 2),
            "hada_w2_b": (2, IN * 9),
        },
        lambda p: ((p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])).reshape(
            OUT, IN, 3, 3
        ),
        3 / 2,
    ),
    Case(
        "loha in tucker's form",
        conv,
        {
            "hada_t1": (2, 2, 3, 3),
            "hada_w1_a": (2, OUT),
            "hada_w1_b": (2, IN),
            "hada_t2": (2, 2, 3, 3),
            "hada_w2_a": (2, OUT),
            "hada_w2_b": (2, IN),
        },
        lambda p: (
            tucker(p["hada_t1"], p["hada_w1_a"], p["hada_w1_b"])
            * tucker(p["hada_t2"], p["hada_w2_a"], p["hada_w2_b"])
        ),
        3 / 2,
    ),
    Case(
        "lokr of whole factors",
        linear,
        {"lokr_w1": (2, 3), "lokr_w2": (4, 4)},
        lambda p: kron(p["lokr_w1"], p["lokr_w2"]),
        1,
    ),
    Case(
        "lokr of low-rank factors",
        linear,
        {"lokr_w1_a": (2, 1), "lokr_w1_b": (1, 3), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 4)},
        lambda p: kron(p["lokr_w1_a"] @ p["lokr_w1_b"], p["lokr_w2_a"] @ p["lokr_w2_b"]),
        3 / 2,
    ),
    Case(
        "lokr of a convolution",
        conv,
        {"lokr_w1": (2, 3), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 4 * 9)},
        lambda p: kron(p["lokr_w1"], (p["lokr_w2_a"] @ p["lokr_w2_b"])).reshape(OUT, IN, 3, 3),
        3 / 2,
    ),
    Case(
        "lokr of a convolution with whole factors",
        conv,
        {"lokr_w1": (2, 3), "lokr_w2": (4, 4, 3, 3)},
        lambda p: kron(p["lokr_w1"], p["lokr_w2"].flatten(1)).reshape(OUT, IN, 3, 3),
        1,
    ),
    Case(
        "lokr in tucker's form",
        conv,
        {"lokr_w1": (2, 3), "lokr_t2": (2, 2, 3, 3), "lokr_w2_a": (2, 4), "lokr_w2_b": (2, 4)},
        lambda p: kron(
            p["lokr_w1"], tucker(p["lokr_t2"], p["lokr_w2_a"], p["lokr_w2_b"]).flatten(1)
        ).reshape(OUT, IN, 3, 3),
        3 / 2,
    ),
    Case("whole difference", conv, {"diff": (OUT, IN, 3, 3)}, lambda p: p["diff"], 1),
    Case(
        "whole difference with the bias's",
        linear,
        {"diff": (OUT, IN), "diff_b": (OUT,)},
        lambda p: p["diff"],
        1,
    ),
]


def decomposed(weight: Tensor, lengths: Tensor) -> Tensor:
    """Bring the rows, or the columns, of a weight to lengths: DoRA, spelled out."""
    result = torch.empty_like(weight)
    if lengths.shape[0] == weight.shape[0]:
        for row in range(weight.shape[0]):
            result[row] = weight[row] / weight[row].norm() * lengths[row].flatten()[0]
    else:
        for column in range(weight.shape[1]):
            part = weight[:, column]
            result[:, column] = part / part.norm() * lengths[0, column].flatten()[0]
    return result


def answer(target: nn.Linear | nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if isinstance(target, nn.Linear):
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, target.stride, target.padding)


def input_for(target: nn.Linear | nn.Conv2d) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    shape = (2, 5, IN) if isinstance(target, nn.Linear) else (2, IN, 7, 7)
    return torch.randn(shape, generator=generator)
