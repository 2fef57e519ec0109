"""The layers of a CLIP text tower, under the names that transformers gives them."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, arange, nn, sigmoid

from sd_textenc.config import CLIPTextConfig


class CLIPStates(NamedTuple):
    """What a tower makes of ids (B, T).

    `last_hidden_state` (B, T, D) is under the final norm; `hidden_states` are L + 1 times
    (B, T, D), the embeddings first and each layer's output after them, without it.
    """

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]


class CLIPTextTransformer(nn.Module):
    """Map ids (B, T) to states: a causal pre-norm transformer (arXiv 2103.00020, section 2.4).

    Equals transformers' CLIPTextModel, weight for weight and name for name; new weights are drawn
    as OpenAI's CLIP draws them.
    """

    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, token_ids: Tensor, *, output_hidden_states: bool = False) -> CLIPStates:
        """Return the last layer's states, and every layer's if asked for."""
        x = self.embeddings(token_ids)
        states = [x]
        for layer in self.encoder.layers:
            x = layer(x)
            states.append(x)
        kept = tuple(states) if output_hidden_states else ()
        return CLIPStates(self.final_layer_norm(x), kept)


class CLIPTextProjected(nn.Module):
    """A tower beside the projection of its pooled state, as CLIPTextModelWithProjection is."""

    def __init__(self, config: CLIPTextConfig, projection_dim: int):
        super().__init__()
        self.text_model = CLIPTextTransformer(config)
        self.text_projection = nn.Linear(config.hidden_size, projection_dim, bias=False)
        nn.init.normal_(self.text_projection.weight, std=config.hidden_size**-0.5)


class _Embeddings(nn.Module):
    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_positions, config.hidden_size)
        for table in (self.token_embedding, self.position_embedding):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, token_ids: Tensor) -> Tensor:
        places = arange(token_ids.shape[1], device=token_ids.device)
        words: Tensor = self.token_embedding(token_ids)
        positions: Tensor = self.position_embedding(places)
        return words + positions


class _Encoder(nn.Module):
    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))


class _Layer(nn.Module):
    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.layer_norm1 = nn.LayerNorm(width, eps)
        self.self_attn = _Attention(width, config.num_heads)
        self.layer_norm2 = nn.LayerNorm(width, eps)
        self.mlp = _MLP(width, config.intermediate_size, quick=config.hidden_act == "quick_gelu")
        inner = width**-0.5 * (2 * config.num_layers) ** -0.5
        attention = self.self_attn
        for linear, std in (
            (attention.q_proj, inner),
            (attention.k_proj, inner),
            (attention.v_proj, inner),
            (attention.out_proj, width**-0.5),
            (self.mlp.fc1, (2 * width) ** -0.5),
            (self.mlp.fc2, inner),
        ):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        changed: Tensor = self.mlp(self.layer_norm2(x))
        return x + changed


class _Attention(nn.Module):
    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        projected: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return projected


class _MLP(nn.Module):
    def __init__(self, width: int, hidden: int, *, quick: bool):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.quick = quick

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.fc1(x)
        # OpenAI's own approximation, of 2021 and before the tanh one was in torch.
        hidden = hidden * sigmoid(1.702 * hidden) if self.quick else F.gelu(hidden)
        projected: Tensor = self.fc2(hidden)
        return projected
