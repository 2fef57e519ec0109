"""OFT and BOFT: orthogonal matrices that turn a weight's rows among one another."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from sd_adapters.adapter import AdapterError
from sd_adapters.layer import WeightLayer
from sd_adapters.targets import Target

_TINY = 1e-8


class OftLayer(WeightLayer):
    """The weight's rows, block by block, times orthogonal matrices; then each by a factor.

    Qiu et al., arXiv:2306.07280, section 3.3: each block is (I + Q)(I - Q)^-1 of a skew Q. Blocks
    (n, b, b) turn b neighbours each; (m, n, b, b) are m such turns with strides in between, the
    butterfly of Liu et al., arXiv:2311.06243, section 4. ``alpha`` limits the length of all Q
    together to alpha times the number of rows, 0 does not. Both as LyCORIS has them. A strength
    goes straight from the model's weight to the adapted one.
    """

    marks = frozenset({"oft_blocks"})
    absent_alpha = 0.0

    def __init__(self, target: Target, blocks: tuple[int, ...], *, rescaled: bool) -> None:
        super().__init__(target, rank=None, alpha=0.0)
        *stages, number, size, other_size = blocks
        widest = size << (stages[0] - 1) if stages and stages[0] > 0 else size
        rows = self.shape[0]
        fits = size == other_size and number * size == rows and rows % widest == 0
        if not fits or len(stages) > 1 or (stages and (size % 2 or stages[0] < 1)):
            raise AdapterError(f"oft_blocks of {blocks} do not turn {rows} rows")
        self.oft_blocks = nn.Parameter(torch.zeros(blocks))
        ones = [1] * (len(self.shape) - 1)
        self.rescale = nn.Parameter(torch.ones(rows, *ones)) if rescaled else None

    @classmethod
    def like(cls, target: Target, parts: Mapping[str, Tensor]) -> Self:
        """Make a layer that is built as a file's tensors are: see ``WeightLayer``."""
        blocks = tuple(parts["oft_blocks"].shape)
        if len(blocks) not in (3, 4):
            raise AdapterError(f"oft_blocks of {blocks} are neither OFT's nor BOFT's")
        return cls(target, blocks, rescaled="rescale" in parts)

    def product(self) -> Tensor:
        """Raise ``AssertionError``: what is added depends on the target's weight."""
        raise AssertionError("OFT adds nothing of its own")

    def addition(self, weight: Tensor) -> Tensor:
        """Return what makes of the target's weight the adapted one, in its shape, in float32."""
        turns, turned = self._turns(), weight.float()
        if turns.ndim == 3:
            blocks = turned.reshape(*turns.shape[:2], *self.shape[1:])
            turned = torch.einsum("knm,kn...->km...", turns, blocks).reshape(self.shape)
        else:
            for stage, turn in enumerate(turns):
                turned = self._butterfly(turned, turn, turn.shape[-1] // 2 << stage)
        if self.rescale is not None:
            turned = turned * self.rescale.float()
        return turned - weight.float()

    def _turns(self) -> Tensor:
        """Return the orthogonal blocks by Cayley's transform, in the shape of the parameters."""
        blocks = self.oft_blocks.float()
        skew = blocks - blocks.mT
        assert self.alpha is not None
        limit = float(self.alpha) * self.shape[0]
        if limit > 0:
            skew = skew * (limit / (skew.norm() + _TINY)).clamp_max(1)
        one = torch.eye(skew.shape[-1], device=skew.device)
        turns: Tensor = (one + skew) @ torch.linalg.inv(one - skew)
        return turns

    def _butterfly(self, rows: Tensor, turn: Tensor, stride: int) -> Tensor:
        """Turn rows (out, ...) by blocks (n, b, b) of such as are a stride apart."""
        rest = rows.shape[1:]
        near = rows.reshape(-1, 2, stride, *rest).transpose(1, 2)
        blocks = near.reshape(*turn.shape[:2], *rest)
        turned = torch.einsum("kij,kj...->ki...", turn, blocks)
        return turned.reshape(-1, stride, 2, *rest).transpose(1, 2).reshape(rows.shape)
