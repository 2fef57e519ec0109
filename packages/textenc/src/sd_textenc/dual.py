"""Two text towers that one denoiser listens to, as in SDXL base."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sd_textenc.conditioning import Conditioning
from sd_textenc.errors import TextEncoderError
from sd_textenc.tokenizer import PromptReport
from sd_textenc.tower import TextTower


class DualTextEncoder(nn.Module):
    """Join two towers: hidden states side by side, pooled of the second (arXiv 2307.01952, 2.1).

    SDXL base has CLIP ViT-L first (D 768) and OpenCLIP bigG second (D 1280, P 1280), both with
    `penultimate`, and each with its own tokenizer: the first pads with <|endoftext|>, the
    second with "!".

    Raises:
        TextEncoderError: the contexts differ, or the second tower has no projection.

    """

    def __init__(self, first: TextTower, second: TextTower):
        super().__init__()
        lengths = [tower.tokenizer.context_length for tower in (first, second)]
        if lengths[0] != lengths[1]:
            raise TextEncoderError(
                f"the towers' contexts are {lengths[0]} and {lengths[1]}; they must be the same"
            )
        if second.config.projection_dim is None:
            raise TextEncoderError(
                "the second tower's projection_dim is None; give the one with a projection"
            )
        self.first = first
        self.second = second

    @property
    def clip_skip(self) -> int:
        """The number of last layers that both towers leave out."""
        return self.first.clip_skip

    @clip_skip.setter
    def clip_skip(self, number: int) -> None:
        self.check_clip_skip(number)
        for tower in (self.first, self.second):
            tower.clip_skip = number

    def check_clip_skip(self, number: int) -> None:
        """Raise `TextEncoderError` where a tower has not so many layers to leave out."""
        for tower in (self.first, self.second):
            tower.check_clip_skip(number)

    def check(self, prompt: str) -> PromptReport:
        """Report what of a prompt does not arrive at one tower at least."""
        reports = [tower.check(prompt) for tower in (self.first, self.second)]
        unknown = dict.fromkeys(word for report in reports for word in report.unknown)
        return PromptReport(
            num_tokens=max(report.num_tokens for report in reports),
            dropped=max((report.dropped for report in reports), key=len),
            unknown=tuple(unknown),
        )

    def encode(
        self, prompts: Sequence[str], prompts_2: Sequence[str] | None = None
    ) -> Conditioning:
        """Encode B prompts into hidden states (B, T, D1 + D2) and pooled (B, P).

        The second tower hears `prompts_2` where they are given, B of them.
        """
        return self.encode_tokens(*self.tokenize(prompts, prompts_2))

    def tokenize(
        self, prompts: Sequence[str], prompts_2: Sequence[str] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the first tower's ids (B, T) and the second's (B, T).

        Raises:
            TextEncoderError: there are more prompts for one tower than for the other.

        """
        first = self.first.tokenizer(prompts)
        second = self.second.tokenizer(prompts if prompts_2 is None else prompts_2)
        if len(first) != len(second):
            raise TextEncoderError(
                f"there are {len(first)} prompts and {len(second)} second prompts; "
                "give as many of either"
            )
        return first, second

    def encode_tokens(self, token_ids: Tensor, token_ids_2: Tensor) -> Conditioning:
        """Encode ids (B, T) and (B, T), of the two towers' tokenizers."""
        first = self.first.encode_tokens(token_ids)
        second = self.second.encode_tokens(token_ids_2)
        hidden_states = torch.cat([first.hidden_states, second.hidden_states], dim=-1)
        return Conditioning(hidden_states=hidden_states, pooled=second.pooled)

    def forward(self, token_ids: Tensor, token_ids_2: Tensor) -> Conditioning:
        """Encode ids (B, T) and (B, T): what a wrapper around modules calls."""
        return self.encode_tokens(token_ids, token_ids_2)
