"""What the CLIP text towers have in common, whichever library computes them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sd_checkpoint import KeyMap
from sd_textenc.conditioning import Conditioning
from sd_textenc.config import CLIPTextConfig
from sd_textenc.errors import TextEncoderError
from sd_textenc.keys import is_no_weight, without
from sd_textenc.tokenizer import PromptReport, Tokenizer


class TextTower(nn.Module, ABC):
    """Encode prompts with a CLIP text transformer (Radford et al., 2021, arXiv 2103.00020).

    `model` holds the weights, random until some are loaded. What it computes with is the
    weights' device and precision.

    `clip_skip=n` leaves out the last n layers: diffusers' `clip_skip=n`, and "Clip skip n + 1"
    of the web UIs, which count from 1. The final layer norm is applied to what is left; with
    `penultimate`, as SDXL reads its towers, one layer more is left out and no norm applied. The
    pooled vector always comes from the whole stack.

    Raises:
        TextEncoderError: the tokenizer has more ids or places than the config, or `clip_skip`
            leaves no layer.

    """

    model: Any

    def __init__(
        self,
        config: CLIPTextConfig,
        tokenizer: Tokenizer,
        clip_skip: int = 0,
        *,
        penultimate: bool = False,
    ):
        super().__init__()
        _check_fit(config, tokenizer)
        self.config = config
        self.tokenizer = tokenizer
        self.penultimate = penultimate
        self.clip_skip = clip_skip

    @property
    def clip_skip(self) -> int:
        """The number of last layers that are left out."""
        return self._clip_skip

    @clip_skip.setter
    def clip_skip(self, number: int) -> None:
        self.check_clip_skip(number)
        self._clip_skip = number

    def check_clip_skip(self, number: int) -> None:
        """Raise `TextEncoderError` where there are not so many layers to leave out."""
        most = self.config.num_layers - 1 - self.penultimate
        if not 0 <= number <= most:
            raise TextEncoderError(f"clip_skip is {number}; it must be from 0 to {most}")

    def check(self, prompt: str) -> PromptReport:
        """Report what of a prompt does not arrive."""
        return self.tokenizer.check(prompt)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Encode B prompts into hidden states (B, T, D) and pooled (B, P).

        Text beyond the context does not arrive: `check(prompt)` tells which.
        """
        return self.encode_tokens(self.tokenizer(prompts))

    def encode_tokens(self, token_ids: Tensor) -> Conditioning:
        """Encode ids (B, T) from the tokenizer; each row holds an <|endoftext|>."""
        token_ids = token_ids.to(self._device)
        num_left_out = self.clip_skip + self.penultimate
        hidden_states, last = self._run(token_ids, num_left_out)
        if num_left_out and not self.penultimate:
            hidden_states = self._final_norm(hidden_states)
        return Conditioning(hidden_states=hidden_states, pooled=self._pool(last, token_ids))

    def forward(self, token_ids: Tensor) -> Conditioning:
        """Encode ids (B, T): what a wrapper around modules calls."""
        return self.encode_tokens(token_ids)

    def file_state_dict(self) -> Mapping[str, Tensor]:
        """Return the weights under a folder's names, `text_model.encoder.layers.0...`."""
        return self._file_key_map().inverse().apply(self.model.state_dict())

    def model_state_dict(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Rename a folder's tensors to `model`'s names: the inverse of `file_state_dict`.

        A tensor is read when it is asked for. Passes over the `position_ids` that old files
        carry. Raises sd_checkpoint's CheckpointError where the file is of another family.
        """
        return self._file_key_map().apply(without(tensors, is_no_weight))

    @property
    @abstractmethod
    def body(self) -> Any:
        """The module that holds the layers: what adapters attach to."""

    @property
    @abstractmethod
    def _device(self) -> torch.device: ...

    @abstractmethod
    def _file_key_map(self) -> KeyMap: ...

    @abstractmethod
    def _run(self, token_ids: Tensor, num_left_out: int) -> tuple[Tensor, Tensor]:
        """Return the states `num_left_out` layers before the end, and those of the last layer.

        The last layer's come under the final norm, those of an earlier one without it.
        """

    @abstractmethod
    def _final_norm(self, hidden_states: Tensor) -> Tensor: ...

    @abstractmethod
    def _project(self, pooled: Tensor) -> Tensor: ...

    def _pool(self, last: Tensor, token_ids: Tensor) -> Tensor:
        # By the tokenizer's id, not the config's: SD 1.x folders say eos 2, and transformers
        # then takes the greatest id, as open_clip does, which is wrong once tokens are added.
        end = (token_ids == self.tokenizer.eos_token_id).int().argmax(dim=-1)
        pooled = last[torch.arange(len(last), device=last.device), end]
        return pooled if self.config.projection_dim is None else self._project(pooled)


def own_device(tensor: Tensor) -> torch.device:
    """Return where a buffer that no file fills is to lie: never on the meta device."""
    return torch.device("cpu") if tensor.is_meta else tensor.device


def _check_fit(config: CLIPTextConfig, tokenizer: Tokenizer) -> None:
    if tokenizer.vocab_size > config.vocab_size:
        raise TextEncoderError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the encoder {config.vocab_size}; "
            "take the tokenizer that came with these weights"
        )
    if tokenizer.context_length > config.max_positions:
        raise TextEncoderError(
            f"the tokenizer's context is {tokenizer.context_length}, the encoder has "
            f"{config.max_positions} places; shorten the context"
        )
