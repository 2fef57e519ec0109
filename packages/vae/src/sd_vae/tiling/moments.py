"""The true mean and variance of an activation of which only bands are ever in memory."""

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

__all__ = ["Moments"]

# Values taken at once: few enough that the second look at them finds them in the cache.
_MAX_VALUES = 2**19


class Moments:
    """Gather count, mean and sum of squared deviations of every channel (B, C), in float64.

    Those of a part join those of the whole by the pairwise formula of Chan, Golub & LeVeque 1983,
    "Algorithms for computing the sample variance", The American Statistician 37(3), 242-247.
    Unlike the difference of E[x^2] and E[x]^2 it loses no digits to a mean far from zero.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = torch.zeros(())
        self._deviations = torch.zeros(())

    def add(self, rows: Tensor) -> None:
        """Take in rows (B, C, n, W)."""
        batch, channels, _, width = rows.shape
        step = max(1, _MAX_VALUES // (batch * channels * width))
        for first in range(0, rows.shape[2], step):
            part = rows[:, :, first : first + step]
            count = part.shape[2] * width
            mean, deviations = _moments(part)
            total = self._count + count
            delta = mean - self._mean
            self._mean = self._mean + delta * (count / total)
            self._deviations = (
                self._deviations + deviations + delta.square() * (self._count * count / total)
            )
            self._count = total

    def scale_and_shift(self, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
        """Return the norm as x * scale + shift, both (B, C, 1, 1), in float32 or wider.

        Wu & He 2018, arXiv:1803.08494, equations 1, 2 and 6.
        """
        by_group = rearrange(self._mean, "b (g c) -> b g c", g=norm.num_groups)
        mean = reduce(by_group, "b g c -> b g 1", "mean")
        spread = reduce((by_group - mean).square(), "b g c -> b g", "mean")
        deviations = rearrange(self._deviations, "b (g c) -> b g c", g=norm.num_groups)
        var = spread + reduce(deviations, "b g c -> b g", "mean") / self._count
        per_group = norm.num_channels // norm.num_groups
        rstd = repeat((var + norm.eps).rsqrt(), "b g -> b (g c)", c=per_group)
        mean = repeat(mean, "b g 1 -> b (g c)", c=per_group)
        scale = norm.weight.detach().cpu().double() * rstd
        shift = norm.bias.detach().cpu().double() - mean * scale
        weight = norm.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        scale, shift = (
            rearrange(t, "b c -> b c 1 1").to(weight.device, wide) for t in (scale, shift)
        )
        return scale, shift


def _moments(part: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and sum of squared deviations (B, C) of a part (B, C, n, W), in float64.

    The corrected two-pass algorithm of the same paper, in float32 or wider: the mean of the
    deviations is what rounding took from the mean.
    """
    wide = part.to(torch.promote_types(part.dtype, torch.float32))
    mean = wide.mean(dim=(2, 3))
    deviations = wide - rearrange(mean, "b c -> b c 1 1")
    rest = deviations.mean(dim=(2, 3))
    squares = deviations.square_().sum(dim=(2, 3))
    # One transfer; and not every device has float64.
    mean, rest, squares = torch.stack((mean, rest, squares)).cpu().double()
    count = part.shape[2] * part.shape[3]
    return mean + rest, squares - count * rest.square()
