"""Hypernetworks: small networks before the key and value projections of attention."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sd_adapters.adapter import AdapterError
from sd_adapters.hypernetwork_config import ACTIVATIONS, HypernetworkConfig, initialise
from sd_adapters.origin import Origin
from sd_adapters.targets import places_ending_in

_PROJECTIONS = {"to_k": "k", "to_v": "v"}


class HypernetworkModule(nn.Module):
    """A network from a context's width to the same width, under the web UI's key names."""

    def __init__(self, width: int, config: HypernetworkConfig) -> None:
        super().__init__()
        self.linear = nn.Sequential(*_layers(width, config))
        initialise(self.linear, config)

    def forward(self, x: Tensor) -> Tensor:
        """Map a context (B, T, D) to what is to be added to it, (B, T, D)."""
        out: Tensor = self.linear(x)
        return out


class Hypernetwork(nn.ModuleDict):
    """Change the context before the key projections, and otherwise before the value projections.

    The hypernetworks of AUTOMATIC1111's web UI: x + strength * net(x), with one net for the keys
    and one for the values for each width of context. All attention layers of a width share them,
    and in self-attention the context is the pixels' own: so 768 is the text of Stable Diffusion 1,
    and 320, 640 and 1280 are its self-attention. Several in one model follow one another in the
    order in which they were injected. ``strength`` may change while injected.
    """

    def __init__(self, widths: Iterable[int], config: HypernetworkConfig) -> None:
        super().__init__()
        self.widths = tuple(sorted(widths))
        self.config = config
        self.name = ""
        self.origin = Origin()
        self.strength = 1.0
        self._handles: list[RemovableHandle] = []
        if not self.widths or self.widths[0] < 1:
            raise AdapterError("a hypernetwork needs context widths of 1 or more, such as 768")
        for width in self.widths:
            pair = {side: HypernetworkModule(width, config) for side in _PROJECTIONS.values()}
            self[str(width)] = nn.ModuleDict(pair)

    @classmethod
    def create(
        cls, model: nn.Module, config: HypernetworkConfig, widths: Iterable[int] | None = None
    ) -> "Hypernetwork":
        """Make a new hypernetwork for a model: for all its contexts' widths, or for those given.

        Raises ``AdapterError`` if the model has no attention, or none of a width given.
        """
        own = {projection.in_features for _, projection in _projections(model)}
        hypernetwork = cls(own if widths is None else widths, config)
        hypernetwork._require_widths(own)
        return hypernetwork

    def inject(self, model: nn.Module) -> None:
        """Attach a hook to every ``to_k`` and ``to_v`` whose context has one of the widths.

        Moves each network to the device of its projections. Raises ``AdapterError`` if it is
        injected already, or listing the widths that no attention of the model has.
        """
        if self._handles:
            raise AdapterError("this hypernetwork is injected already: eject it first")
        projections = _projections(model)
        self._require_widths(projection.in_features for _, projection in projections)
        for side, projection in projections:
            if projection.in_features in self.widths:
                network = self._network(projection.in_features, side)
                network.to(projection.weight.device)
                hook = projection.register_forward_pre_hook(self._change(network))
                self._handles.append(hook)

    def eject(self) -> None:
        """Let go of the model, which is bit for bit as it was; does nothing if not injected."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def fuse(self) -> None:
        """Raise ``AdapterError``: no weight of the model can do what a network before it does."""
        raise AdapterError("a hypernetwork cannot be fused into the weights: leave it injected")

    def _network(self, width: int, side: str) -> nn.Module:
        pair = self[str(width)]
        assert isinstance(pair, nn.ModuleDict)
        return pair[side]

    def _require_widths(self, there: Iterable[int]) -> None:
        there = set(there)
        absent = [width for width in self.widths if width not in there]
        if absent:
            raise AdapterError(
                f"the model's attention reads contexts of width {_listed(there)}; "
                f"this hypernetwork was made for another model, of width {_listed(absent)}",
                [f"{width}.{side}" for width in absent for side in _PROJECTIONS.values()],
            )

    def _change(
        self, network: nn.Module
    ) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        def hook(_projection: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            context, *others = inputs
            # In the network's own precision, as the web UI has it.
            x = context.to(next(network.parameters()).dtype)
            return (x + self.strength * network(x)).to(context.dtype), *others

        return hook


def _layers(width: int, config: HypernetworkConfig) -> list[nn.Module]:
    """Return the layers in the order that gives the web UI's key numbers."""
    layers: list[nn.Module] = []
    sizes = [int(width * factor) for factor in config.layer_structure]
    if min(sizes) < 1:
        raise AdapterError(f"layer_structure {config.layer_structure} leaves width {width} nothing")
    last = len(sizes) - 2
    for index in range(len(sizes) - 1):
        layers.append(nn.Linear(sizes[index], sizes[index + 1]))
        if config.activation_func != "linear" and (index < last or config.activate_output):
            layers.append(ACTIVATIONS[config.activation_func]())
        if config.is_layer_norm:
            layers.append(nn.LayerNorm(sizes[index + 1]))
        if config.dropout_structure and config.dropout_structure[index + 1] > 0:
            layers.append(nn.Dropout(config.dropout_structure[index + 1]))
    return layers


def _projections(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Return the key and value projections of a model, each with "k" or "v"."""
    return [
        (_PROJECTIONS[path.rpartition(".")[2]], target)
        for path, target in places_ending_in(model, _PROJECTIONS)
        if isinstance(target, nn.Linear)
    ]


def _listed(widths: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(widths)))
