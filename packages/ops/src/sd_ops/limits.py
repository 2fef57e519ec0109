"""Which path is best from what size on: a table of what was measured, by processor and type.

Measured by `python benchmarks/layers.py` at SD 1.5's shapes, two samples, in GFLOP/s.

Two AVX-512 cores of an AMD EPYC with bfloat16 products:

- float32, of 235 at most: `F.linear` 110 to 165, the same as a 1x1 convolution 185 to 210, both
  ways 160 to 195 and 200 to 220 from 1,024 tokens on, and no slower at 256. 3x3 convolutions 210,
  by Winograd 400 at 64 x 64, 350 at 32 x 32 and 230 at 16 x 16 of those that are counted; at 8 x
  8, where reading the kernel takes the time, 90 and as one product 140. With gradients, one
  sample, for the result, x and the kernel: 320 channels at 64 x 64 in 35, 36 and 42 ms, by
  Winograd 25, 25 and 20, the kernel's transforms among them; 640 at 32 x 32 in 35, 36 and 40, by
  Winograd 28 each; at 16 x 16 it is the slower one.
- bfloat16, of 515: `F.linear` 330 at 2,048 tokens and more, as a convolution 400; with fewer
  tokens and many channels it is the other way round. 3x3 convolutions 515, at 8 x 8 210 and as one
  product 370. Attention: 4096 x 4096 x 40 in 350 ms, by rows 250; 1024 x 1024 x 80 in 36, by rows
  25.

One core of an Intel Xeon with AMX:

- float32, of 140: `F.linear` and a 1x1 convolution are within each other's noise. 3x3 convolutions
  100 to 135, by Winograd 287, 260 and 190 at 64 x 64, 32 x 32 and 16 x 16; at 12 x 12 91, as one
  product 103, at 8 x 8 82 and 106.
- bfloat16, of 1,300: `F.linear` 330 to 910; as a convolution 7 % more where 320 or 640 channels
  become as many, else 7 to 40 % less; with the bias added within the product a seventh of all
  linear layers' time less (1024 x 320 x 2560 6.2 to 4.4 ms, 8192 x 320 x 320 2.3 to 1.5). 3x3
  convolutions 1,190 and 980 at 64 x 64 and 32 x 32; 540 and as one product 650 at 16 x 16, 322
  and 654 at 12 x 12, 266 and 466 at 8 x 8. Attention in torch's one kernel, which multiplies in
  tiles: 140 to 160 (width 40), 250 to 280 (80); by rows 60 and 160. Both ways, with gradients: 8
  heads, 4096 x 4096 x 40 in 1,000 ms, with the backward by products 870; 1024 x 1024 x 80 in 99
  and 77; 256 x 256 x 160 in 13, by products both ways, which keep the weights, 9; 4096 and 1024
  queries of 77 keys in 48 and 18, so 30 and 10; 64 heads, 256 x 32 x 32 in 31, so 6.

Our own attention (`sd_ops.native`), on both cores of that Xeon: bfloat16 4096 x 4096 x 40 in 91 to
115 ms where torch's takes 154 to 182, 1024 x 1024 x 80 in 9.4 and 13.9, 4096 x 77 x 40 in 4.3 and
10.6, 256 x 256 x 160 in 1.35 and 1.21; both ways, one sample, 4096 x 4096 x 40 in 193 and 482, 512
heads of 64 x 64 x 64 in 21 and 91. In float32 229 to 273 where torch's takes 336 to 362, with fewer
than 1,024 queries as long or longer, and with gradients longer. By pairs, without tiles, it has
run on no processor whose pairs are twice as fast as float32, as AMD's are: there it is taken for
what its instructions take.

Our own convolutions go by Winograd and are faster than torch's products in every shape that was
tried; they and linear layers on two cores of an Intel Xeon with AVX512_BF16 and AVX512_FP16, whose
tiles are hidden:

- float32, of 335: `F.linear` 285. 3x3 convolutions 860 to 1,030 at 64 x 64 and 32 x 32, by torch's
  products 550 to 640; at 16 x 16 820 and 380; at 8 x 8 380, as one product 140.
- bfloat16, of 170 by pairs and 770 by float16: 160 to 177 by oneDNN. By our own kernels, in
  float16: linear layers 510 to 620, with 128 tokens 430; 3x3 convolutions 1,370 to 1,560, at 8 x 8
  880; attention 4096 x 4096 x 40 in 80 to 90 ms, torch's 372; 1024 x 1024 x 80 in 10 and 38. In
  float32 linear layers 250 to 300, convolutions 785 to 1,040, attention in 157 and 19 ms. All
  weights of a network learn in 11.3 s a step by pairs; with the result and the gradient of x by our
  kernels, and those of weights in float32, in 5.9, where float32 takes 6.9.

On the EPYC those convolutions, in float32, were not measured: they are taken for bfloat16 from 16
tiles on, as its float32 is 0.7 of this one's and its pairs do 515, 210 at 8 x 8.

Other processors have no products of bfloat16, and nothing was measured on one: in float32 they are
taken for the EPYC, whose limits hang on how many sums there are, and in bfloat16 all is torch's
own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

__all__ = ["PROCESSORS", "Limits", "limits", "processor"]

NEVER = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From what size on a path is taken, or up to which: for one processor and one type.

    Winograd's are of float32 alone, for in halves its transforms would lose digits; but our own
    kernel, whose limit is `min_tiles_natively`, computes them in float32 for either.
    """

    min_tokens: int = NEVER
    """Of a linear layer as a 1x1 convolution: fewer are too little work to be worth it."""

    min_tokens_to_learn: int = NEVER
    """The same where gradients are wanted."""

    min_tokens_to_fuse: int = NEVER
    """Of a linear layer whose bias is added within its product."""

    min_tokens_natively: int = NEVER
    """Of a linear layer by our own kernel, with gradients of what it is given, too."""

    max_pixels: int = 0
    """Of a 3x3 convolution as one product, all pictures' together."""

    min_queries: int = NEVER
    """For attention by our own kernel, where there is one (`sd_ops.native`)."""

    min_queries_to_learn: int = NEVER
    """The same both ways, where gradients are wanted."""

    min_rows: int = NEVER
    """Of queries and of keys, for attention by plain products."""

    max_keys_to_learn: int = 0
    """For attention by plain products both ways, which keeps its weights, with gradients."""

    min_keys_to_learn: int = NEVER
    """For attention by torch's own and back by plain products, with gradients."""

    min_tiles: int = NEVER
    """For Winograd: with fewer, transforming the kernel takes too long."""

    min_tiles_to_learn: int = NEVER

    min_tiles_natively: int = NEVER
    """For Winograd by our own kernel (`sd_ops.native`), with gradients too."""

    weights_learn_in_float32: bool = False
    """Whether gradients of weights are sooner multiplied in float32, casts and all."""


_FLOAT32 = Limits(
    min_tokens=64,
    min_tokens_to_learn=256,
    max_pixels=256,
    min_queries=1024,
    min_tiles=32,
    min_tiles_to_learn=64,
    min_tiles_natively=4,
)
_TABLE: Mapping[str, Mapping[torch.dtype, Limits]] = MappingProxyType(
    {
        "amx": {
            torch.float32: Limits(
                max_pixels=384,
                min_queries=1024,
                min_tiles=32,
                min_tiles_to_learn=64,
                min_tiles_natively=4,
            ),
            torch.bfloat16: Limits(
                min_tokens_to_fuse=64,
                max_pixels=512,
                min_queries=256,
                min_queries_to_learn=64,
                max_keys_to_learn=256,
                min_keys_to_learn=257,
            ),
        },
        "avx512_bf16": {
            torch.float32: _FLOAT32,
            torch.bfloat16: Limits(
                min_tokens=2048,
                max_pixels=256,
                min_queries=256,
                min_queries_to_learn=64,
                min_rows=1024,
                max_keys_to_learn=256,
                min_tiles_natively=16,
            ),
        },
        "avx512_fp16": {
            torch.float32: _FLOAT32,
            torch.bfloat16: Limits(
                min_tokens_natively=16,
                max_pixels=4096,
                min_queries=64,
                min_queries_to_learn=64,
                max_keys_to_learn=256,
                min_tiles_natively=4,
                weights_learn_in_float32=True,
            ),
        },
        "other": {torch.float32: _FLOAT32},
    }
)
PROCESSORS = tuple(_TABLE)
_PLAINLY = Limits()


def processor() -> str:
    """Return which of `PROCESSORS` this one is like, by the products that it offers."""
    return _HERE


def limits(dtype: torch.dtype) -> Limits:
    """Return this processor's limits in a type; where there are none, all is torch's own."""
    return _TABLE[processor()].get(dtype, _PLAINLY)


def _recognised() -> str:
    if _offers("amx_tile"):
        return "amx"
    if not _offers("avx512_bf16"):
        return "other"
    # Of Intel's, the ones that have no tiles, or whose tiles a virtual machine hides.
    asked = getattr(torch.cpu, "get_capabilities", None)
    known = asked() if asked is not None else {}
    by_intel = str(known.get("cpu_name", "")).startswith("Intel")
    return "avx512_fp16" if by_intel and known.get("avx512_fp16") else "avx512_bf16"


def _offers(unit: str) -> bool:
    # Names of torch's own, without which nothing is known of the processor.
    asked = getattr(torch.cpu, f"_is_{unit}_supported", None)
    return asked is not None and bool(asked())


# Once, and not at the first question: that may come from torch.compile, which follows no cache.
_HERE = _recognised()
