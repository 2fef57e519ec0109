"""The CLIP text encoder, through transformers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sd_textenc.conditioning import Conditioning
from sd_textenc.config import CLIPTextConfig
from sd_textenc.errors import TextEncoderError
from sd_textenc.keys import file_key_map
from sd_textenc.tokenizer import Tokenizer

_NO_WEIGHTS = "embeddings.position_ids"


class CLIPTextEncoder(nn.Module):
    """Encode prompts with a CLIP text transformer (Radford et al., 2021, arXiv 2103.00020).

    `model` is transformers' CLIPTextModel, or CLIPTextModelWithProjection where the config has
    a `projection_dim`; its weights are random until some are loaded.

    `clip_skip=n` leaves out the last n layers and applies the final layer norm to what is left:
    diffusers' `clip_skip=n`, and "Clip skip n + 1" of the web UIs, which count from 1. The
    pooled vector always comes from the whole stack.

    Raises:
        TextEncoderError: the tokenizer has more ids or places than the config, or `clip_skip`
            leaves no layer.

    """

    def __init__(self, config: CLIPTextConfig, tokenizer: Tokenizer, clip_skip: int = 0):
        super().__init__()
        _check_fit(config, tokenizer, clip_skip)
        # Imported here: transformers takes seconds, and most of this package needs none of it.
        from transformers import CLIPTextConfig as PeerConfig
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        model_class = (
            CLIPTextModel if config.projection_dim is None else CLIPTextModelWithProjection
        )
        self.config = config
        self.tokenizer = tokenizer
        self.clip_skip = clip_skip
        self.model: Any = model_class(PeerConfig(**config.to_diffusers()))
        # No file holds this buffer: built on the meta device, nothing would ever fill it.
        self._body.embeddings.position_ids = torch.arange(
            config.max_positions, device=_buffer_device(self._body)
        ).expand(1, -1)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Encode B prompts into hidden states (B, T, D) and pooled (B, P).

        Text beyond the context does not arrive: `tokenizer.check(prompt)` tells which.
        """
        return self.encode_tokens(self.tokenizer(prompts))

    def encode_tokens(self, token_ids: Tensor) -> Conditioning:
        """Encode ids (B, T) from the tokenizer; each row holds an <|endoftext|>."""
        token_ids = token_ids.to(self._body.embeddings.token_embedding.weight.device)
        skip = self.clip_skip > 0
        outputs = self._body(token_ids, output_hidden_states=skip)
        last: Tensor = outputs.last_hidden_state
        hidden_states = last
        if skip:
            # [-1] is the last layer's output before the final layer norm.
            hidden_states = self._body.final_layer_norm(outputs.hidden_states[-1 - self.clip_skip])
        return Conditioning(hidden_states=hidden_states, pooled=self._pool(last, token_ids))

    def forward(self, token_ids: Tensor) -> Conditioning:
        """Encode ids (B, T): what a wrapper around modules calls."""
        return self.encode_tokens(token_ids)

    def file_state_dict(self) -> dict[str, Tensor]:
        """Return the weights under the names files use, `text_model.encoder.layers.0...`."""
        return dict(file_key_map(self.config).inverse().apply(self.model.state_dict()))

    def model_state_dict(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename a file's tensors to `model`'s names: the inverse of `file_state_dict`.

        Passes over the `position_ids` that old files carry. Raises sd_checkpoint's
        CheckpointError where the file is of another family.
        """
        wanted = {name: tensors[name] for name in tensors if not name.endswith(_NO_WEIGHTS)}
        return dict(file_key_map(self.config).apply(wanted))

    @property
    def _body(self) -> Any:
        return self.model if self.config.projection_dim is None else self.model.text_model

    def _pool(self, last: Tensor, token_ids: Tensor) -> Tensor:
        # By the tokenizer's id, not the config's: SD 1.x folders say eos 2, and transformers
        # then takes the greatest id, which is wrong once tokens have been added.
        end = (token_ids == self.tokenizer.eos_token_id).int().argmax(dim=-1)
        pooled = last[torch.arange(len(last), device=last.device), end]
        if self.config.projection_dim is None:
            return pooled
        projected: Tensor = self.model.text_projection(pooled)
        return projected


def _check_fit(config: CLIPTextConfig, tokenizer: Tokenizer, clip_skip: int) -> None:
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
    if not 0 <= clip_skip < config.num_layers:
        raise TextEncoderError(
            f"clip_skip is {clip_skip}; it must be from 0 to {config.num_layers - 1}"
        )


def _buffer_device(body: Any) -> torch.device:
    device: torch.device = body.embeddings.position_ids.device
    return torch.device("cpu") if device.type == "meta" else device
