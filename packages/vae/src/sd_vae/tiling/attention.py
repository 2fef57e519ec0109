"""Self-attention whose queries, keys and values are read in bands, exactly."""

import torch
from einops import rearrange
from torch import Tensor, nn

from sd_ops import attention
from sd_vae.blocks import SelfAttention
from sd_vae.tiling.rows import Kept, Rows, row_values

__all__ = ["Attended", "Projected", "RunningAttention"]

# Scores held at once beside the bands: 2**22 float32 values are 16 MiB.
_MAX_SCORES = 2**22
# Rows in work for one row of queries: read, projected, attended, summed, projected back, and slack.
_QUERY_ROWS = 8


class Projected:
    """A linear of an activation's channels, for keys and values."""

    def __init__(self, linear: nn.Linear, source: Rows) -> None:
        batch, _, height, width = source.shape
        self.shape = (batch, linear.out_features, height, width)
        self._linear, self._source = linear, source

    def read(self, start: int, stop: int) -> Tensor:
        """Project rows."""
        return _to_rows(self._linear(_to_tokens(self._source.read(start, stop))), self.shape[3])

    def values_for(self, num_rows: int) -> int:
        """Count rows before and after."""
        return self._source.values_for(num_rows) + num_rows * row_values(self)


class Attended:
    """The answer of an attention layer for bands of queries, without the residual.

    `keys` and `values` are kept, for every band of queries looks at all of them: at once and by
    `sd_ops.attention` when both fit into three quarters of `band_values`, else in bands.
    """

    def __init__(
        self, layer: SelfAttention, queries: Rows, keys: Kept, values: Kept, band_values: int
    ) -> None:
        self.shape = queries.shape
        self._layer, self._queries, self._keys, self._values = layer, queries, keys, values
        self._band_values = band_values
        whole = 2 * self.shape[2] * row_values(self)
        # Twice, for beside the queries there are the residual and what is written.
        least = whole + 2 * _QUERY_ROWS * row_values(self)
        self._whole = whole if 4 * whole <= 3 * band_values and least <= band_values else 0

    def read(self, start: int, stop: int) -> Tensor:
        """Attend from rows to all rows."""
        q = self._layer.to_q(_to_tokens(self._queries.read(start, stop)))
        height = self.shape[2]
        if self._whole:
            k, v = (_to_tokens(kept.read(0, height)) for kept in (self._keys, self._values))
            attended = attention(q, k, v, backend=self._layer.backend)
        else:
            attended = self._in_bands(q)
        return _to_rows(self._layer.to_out[0](attended), self.shape[3])

    def _in_bands(self, q: Tensor) -> Tensor:
        # A quarter of the room is for a band of keys and of values, a quarter for scores.
        height, quarter = self.shape[2], self._band_values // 4
        step = max(1, quarter // (2 * row_values(self)))
        running = RunningAttention(q, min(_MAX_SCORES, quarter // 3))
        for start in range(0, height, step):
            stop = min(start + step, height)
            k, v = (_to_tokens(kept.read(start, stop)) for kept in (self._keys, self._values))
            running.add(k, v)
        return running.result()

    def values_for(self, num_rows: int) -> int:
        """Count queries and answers, and the keys and values beside them."""
        queries = num_rows * _QUERY_ROWS * row_values(self)
        return self._whole + queries if self._whole else 2 * queries


class RunningAttention:
    """Attend from q (B, 1, Tq, D) to keys and values that come in parts.

    The softmax's largest score and sum so far are carried along: Milakov & Gimelshein 2018,
    arXiv:1805.02867, algorithm 3; the values with them: Rabe & Staats 2021, arXiv:2112.05682.
    """

    def __init__(self, q: Tensor, max_scores: int) -> None:
        wide = torch.promote_types(q.dtype, torch.float32)
        self._q = q * q.shape[-1] ** -0.5
        self._max_scores = max_scores
        self._largest = q.new_full((*q.shape[:-1], 1), -torch.inf, dtype=wide)
        self._sum = torch.zeros_like(self._largest)
        self._weighted = torch.zeros_like(q, dtype=wide)

    def add(self, k: Tensor, v: Tensor) -> None:
        """Take in keys and values (B, 1, T, D)."""
        keys = k.transpose(-1, -2)
        step = max(1, self._max_scores // (k.shape[0] * k.shape[2]))
        for start in range(0, self._q.shape[2], step):
            part = slice(start, start + step)
            scores = (self._q[:, :, part] @ keys).to(self._weighted.dtype)
            largest = torch.maximum(self._largest[:, :, part], scores.amax(dim=-1, keepdim=True))
            decay = (self._largest[:, :, part] - largest).exp_()
            weights = scores.sub_(largest).exp_()
            self._largest[:, :, part] = largest
            self._sum[:, :, part] *= decay
            self._sum[:, :, part] += weights.sum(dim=-1, keepdim=True)
            self._weighted[:, :, part] *= decay
            self._weighted[:, :, part] += weights.to(v.dtype) @ v

    def result(self) -> Tensor:
        """Return the answers (B, 1, Tq, D) to all that was added."""
        return self._weighted.div_(self._sum).to(self._q.dtype)


def _to_tokens(rows: Tensor) -> Tensor:
    return rearrange(rows, "b c h w -> b 1 (h w) c")


def _to_rows(tokens: Tensor, width: int) -> Tensor:
    return rearrange(tokens, "b 1 (h w) c -> b c h w", w=width)
