"""How the networks of a hypernetwork are built, in the words of the web UI."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from sd_adapters.adapter import AdapterError

_NAMED_AS_IN_TORCH: tuple[type[nn.Module], ...] = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.RReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
)
# The web UI's names are those of torch.nn in lower case, but for two of its own.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "swish": nn.Hardswish,
    **{kind.__name__.lower(): kind for kind in _NAMED_AS_IN_TORCH},
}
INITIALISATIONS = ("Normal", "XavierUniform", "XavierNormal", "KaimingUniform", "KaimingNormal")
_NORMAL_STD = 0.01
_DROPOUT = 0.3
_MAX_FACTOR = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class HypernetworkConfig:
    """Say how each network is built; the names are those of the web UI's files.

    ``layer_structure`` are the widths between the layers in units of the context's, from 1 to 1.
    ``dropout_structure``, where it is not empty, has a probability for each of these places, the
    first and the last 0. ``activate_output`` puts the activation behind the last layer too.
    Raises ``AdapterError`` with the value that is none of those.
    """

    layer_structure: tuple[float, ...] = (1, 2, 1)
    activation_func: str = "linear"
    weight_initialization: str = "Normal"
    is_layer_norm: bool = False
    dropout_structure: tuple[float, ...] = ()
    activate_output: bool = False

    def __post_init__(self) -> None:
        layers, dropouts = self.layer_structure, self.dropout_structure
        inner_fit = all(0 < factor < _MAX_FACTOR for factor in layers)
        if len(layers) < 2 or layers[0] != 1 or layers[-1] != 1 or not inner_fit:
            raise AdapterError(f"layer_structure is {layers}: give factors from 1 to 1, as 1, 2, 1")
        if self.activation_func not in ACTIVATIONS:
            raise AdapterError(
                f"activation_func is {self.activation_func!r}; known are {_listed(ACTIVATIONS)}"
            )
        if self.weight_initialization not in INITIALISATIONS:
            raise AdapterError(
                f"weight_initialization is {self.weight_initialization!r}; "
                f"known are {', '.join(INITIALISATIONS)}"
            )
        if dropouts and (
            len(dropouts) != len(layers)
            or any(not 0 <= probability < 1 for probability in dropouts)
            or dropouts[0] != 0
            or dropouts[-1] != 0
        ):
            raise AdapterError(
                f"dropout_structure is {dropouts}: give {len(layers)} numbers from 0 to below 1, "
                "the first and the last 0"
            )


def uniform_dropout(num_places: int, last_layer_dropout: bool) -> tuple[float, ...]:
    """Return the dropout structure that ``use_dropout`` stands for in the web UI's files."""
    inner = [_DROPOUT] * max(num_places - 3, 0)
    before_last = [_DROPOUT if last_layer_dropout else 0.0] if num_places > 2 else []
    return (0.0, *inner, *before_last, 0.0)


@torch.no_grad()
def initialise(layers: nn.Sequential, config: HypernetworkConfig) -> None:
    """Draw the weights as the web UI does: norms always near zero, biases always zero."""
    slope: Literal["leaky_relu", "relu"] = (
        "leaky_relu" if config.activation_func == "leakyrelu" else "relu"
    )
    for layer in layers:
        if not isinstance(layer, nn.Linear | nn.LayerNorm):
            continue
        nn.init.zeros_(layer.bias)
        weight = layer.weight
        if isinstance(layer, nn.LayerNorm) or config.weight_initialization == "Normal":
            nn.init.normal_(weight, std=_NORMAL_STD)
        elif config.weight_initialization == "XavierUniform":
            nn.init.xavier_uniform_(weight)
        elif config.weight_initialization == "XavierNormal":
            nn.init.xavier_normal_(weight)
        elif config.weight_initialization == "KaimingUniform":
            nn.init.kaiming_uniform_(weight, nonlinearity=slope)
        else:
            nn.init.kaiming_normal_(weight, nonlinearity=slope)


def _listed(names: dict[str, Callable[[], nn.Module]]) -> str:
    return ", ".join(sorted(names))
