"""The CLIP text encoder, through transformers."""

from typing import Any

import torch
from torch import Tensor

from sd_checkpoint import KeyMap
from sd_textenc.config import CLIPTextConfig
from sd_textenc.keys import transformers_key_map
from sd_textenc.tokenizer import Tokenizer
from sd_textenc.tower import TextTower, own_device


class CLIPTextEncoder(TextTower):
    """Encode prompts with transformers' CLIP: SD 1.x, SDXL's first, the embedded model's.

    `model` is transformers' CLIPTextModel, or CLIPTextModelWithProjection where the config has
    a `projection_dim`. `clip_skip` and `penultimate` are those of `TextTower`, and its errors.
    """

    def __init__(
        self,
        config: CLIPTextConfig,
        tokenizer: Tokenizer,
        clip_skip: int = 0,
        *,
        penultimate: bool = False,
    ):
        super().__init__(config, tokenizer, clip_skip, penultimate=penultimate)
        # Imported here: transformers takes seconds, and most of this package needs none of it.
        from transformers import CLIPTextConfig as PeerConfig
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        model_class = (
            CLIPTextModel if config.projection_dim is None else CLIPTextModelWithProjection
        )
        self.model: Any = model_class(PeerConfig(**config.to_diffusers()))
        # No file holds this buffer: built on the meta device, nothing would ever fill it.
        self.body.embeddings.position_ids = torch.arange(
            config.max_positions, device=own_device(self.body.embeddings.position_ids)
        ).expand(1, -1)

    @property
    def body(self) -> Any:
        """What files call `text_model`: embeddings, layers and the final norm."""
        return self.model if self.config.projection_dim is None else self.model.text_model

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.body.embeddings.token_embedding.weight.device
        return device

    def _file_key_map(self) -> KeyMap:
        return transformers_key_map(self.config)

    def _run(self, token_ids: Tensor, num_left_out: int) -> tuple[Tensor, Tensor]:
        outputs = self.body(token_ids, output_hidden_states=num_left_out > 0)
        last: Tensor = outputs.last_hidden_state
        # hidden_states[-1] is the last layer's output before the final norm.
        return outputs.hidden_states[-1 - num_left_out] if num_left_out else last, last

    def _final_norm(self, hidden_states: Tensor) -> Tensor:
        normed: Tensor = self.body.final_layer_norm(hidden_states)
        return normed

    def _project(self, pooled: Tensor) -> Tensor:
        projected: Tensor = self.model.text_projection(pooled)
        return projected
