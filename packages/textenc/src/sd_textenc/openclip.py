"""The CLIP text encoder, through open_clip."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sd_checkpoint import KeyMap
from sd_textenc.config import OpenCLIPTextConfig
from sd_textenc.keys import file_key_map
from sd_textenc.tokenizer import Tokenizer
from sd_textenc.tower import TextTower, own_device


class OpenCLIPTextEncoder(TextTower):
    """Encode prompts with open_clip: SD 2.x (ViT-H), SDXL's second and the refiner's (bigG).

    `model` is open_clip's TextTransformer, whose names are those of single files below
    `model.`. `clip_skip` and `penultimate` are those of `TextTower`, and its errors. SD 2.x
    reads its tower's last layer but one under the final norm: that is `vit_h14()`, which has
    no last layer, without `penultimate`.
    """

    config: OpenCLIPTextConfig

    def __init__(
        self,
        config: OpenCLIPTextConfig,
        tokenizer: Tokenizer,
        clip_skip: int = 0,
        *,
        penultimate: bool = False,
    ):
        super().__init__(config, tokenizer, clip_skip, penultimate=penultimate)
        # Imported here: open_clip takes seconds, and most of this package needs none of it.
        from open_clip.transformer import LayerNorm, QuickGELU, TextTransformer

        self.model: Any = TextTransformer(
            context_length=config.max_positions,
            vocab_size=config.vocab_size,
            width=config.hidden_size,
            heads=config.num_heads,
            layers=config.num_layers,
            # open_clip cuts width * ratio to a whole number; the half keeps it from falling short.
            mlp_ratio=(config.intermediate_size + 0.5) / config.hidden_size,
            output_dim=config.projection_dim,
            act_layer=QuickGELU if config.hidden_act == "quick_gelu" else nn.GELU,
            norm_layer=partial(LayerNorm, eps=config.layer_norm_eps),
        )
        # No file holds this buffer: built on the meta device, nothing would ever fill it.
        self.model.attn_mask = _causal_mask(config.max_positions, own_device(self.model.attn_mask))

    @property
    def body(self) -> Any:
        """The whole model, whose layers are directly within."""
        return self.model

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.model.token_embedding.weight.device
        return device

    def _file_key_map(self) -> KeyMap:
        return file_key_map(self.config)

    def _run(self, token_ids: Tensor, num_left_out: int) -> tuple[Tensor, Tensor]:
        # Not TextTransformer's own forward: its mask wants the full context, and it pools by the
        # greatest id.
        num_tokens = token_ids.shape[1]
        x = self.model.token_embedding(token_ids) + self.model.positional_embedding[:num_tokens]
        mask = self.model.attn_mask[:num_tokens, :num_tokens]
        final = self.config.num_layers - 1
        _, states = self.model.transformer.forward_intermediates(
            x, attn_mask=mask, indices=[final - num_left_out, final]
        )
        last = self._final_norm(states[-1])
        return states[0] if num_left_out else last, last

    def _final_norm(self, hidden_states: Tensor) -> Tensor:
        normed: Tensor = self.model.ln_final(hidden_states)
        return normed

    def _project(self, pooled: Tensor) -> Tensor:
        projected: Tensor = pooled @ self.model.text_projection
        return projected


def _causal_mask(length: int, device: torch.device) -> Tensor:
    return torch.full((length, length), float("-inf"), device=device).triu(1)
