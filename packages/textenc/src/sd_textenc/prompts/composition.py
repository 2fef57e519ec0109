"""Prompts joined by AND, each with a weight: `a cat AND a dog :1.2`.

The syntax is that of the web UI (AUTOMATIC1111); the weights are those of composable diffusion (Liu
et al., arXiv 2206.01714, eq. 11): x0 = uncond + sum of weight scale (cond - uncond).
"""

import re
from dataclasses import dataclass

from sd_textenc.prompts.emphasis import finite

__all__ = ["WeightedPrompt", "parse_composition"]

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r":\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*$")


@dataclass(frozen=True, slots=True)
class WeightedPrompt:
    """Hold one of several prompts of a picture and its share of the guidance."""

    text: str
    weight: float = 1.0


def parse_composition(prompt: str) -> tuple[WeightedPrompt, ...]:
    """Split a prompt at AND; never raises. A prompt without it comes back as it is, weighing 1."""
    texts = _AND.split(prompt)
    if len(texts) == 1:
        return (WeightedPrompt(prompt),)
    prompts = []
    for text in texts:
        match = _WEIGHT.search(text)
        weight = finite(float(match[1])) if match else 1.0
        prompts.append(WeightedPrompt((text[: match.start()] if match else text).strip(), weight))
    return tuple(prompts)
