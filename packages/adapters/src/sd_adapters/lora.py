"""Low-rank adaptation: a small product of two matrices beside each target's weight."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sd_adapters.adapter import AdapterError
from sd_adapters.targets import Target, flat_name, paths_ending_in, targets_by_name


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """How large a new LoRA is and where it goes; its scale is ``alpha / rank``.

    ``targets`` are ends of module paths, a linear's or a convolution's.
    """

    rank: int = 8
    alpha: float = 8.0
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise AdapterError(f"LoRA rank {self.rank} is below 1: give 1 or more")


class LoraLayer(nn.Module):
    """The addition to one linear or convolution: (alpha / rank) B A x.

    Hu et al., arXiv:2106.09685, equation 3. A keeps a convolution's kernel, B is 1 x 1.
    """

    alpha: Tensor

    def __init__(self, target: Target, rank: int, alpha: float) -> None:
        super().__init__()
        self.rank = rank
        self.lora_down: Target
        self.lora_up: Target
        if isinstance(target, nn.Conv2d):
            if target.groups != 1 or target.padding_mode != "zeros":
                raise AdapterError("LoRA fits convolutions of one group, padded with zeros, only")
            self.lora_down = nn.Conv2d(
                target.in_channels,
                rank,
                target.kernel_size,  # type: ignore[arg-type]
                target.stride,  # type: ignore[arg-type]
                target.padding,  # type: ignore[arg-type]
                target.dilation,  # type: ignore[arg-type]
                bias=False,
            )
            self.lora_up = nn.Conv2d(rank, target.out_channels, kernel_size=1, bias=False)
        else:
            self.lora_down = nn.Linear(target.in_features, rank, bias=False)
            self.lora_up = nn.Linear(rank, target.out_features, bias=False)
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        nn.init.zeros_(self.lora_up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is to be added to the target's answer to x, in the layer's precision."""
        hidden = self.lora_down(x.to(self.lora_down.weight.dtype))
        out: Tensor = self.lora_up(hidden) * (self.alpha / self.rank)
        return out

    @torch.no_grad()
    def weight(self) -> Tensor:
        """Return what is to be added to the target's weight, in its shape and in float32."""
        down, up = self.lora_down.weight.float(), self.lora_up.weight.float()
        product = up.flatten(1) @ down.flatten(1)
        return product.reshape(up.shape[0], *down.shape[1:]) * (self.alpha.float() / self.rank)


class Lora(nn.ModuleDict):
    """A LoRA over one model: a ``LoraLayer`` for each target, under kohya's name for it.

    Hence the state dict is the file: ``lora_unet_..._to_q.lora_down.weight``. ``strength`` scales
    the whole and may change while injected; while fused it has no effect. Under ``torch.compile``
    inject before compiling.
    """

    def __init__(self, prefix: str, layers: Mapping[str, LoraLayer]) -> None:
        super().__init__(layers)
        self.prefix = prefix
        self.strength = 1.0
        self._targets: dict[str, Target] = {}
        self._handles: list[RemovableHandle] = []
        self._originals: dict[str, Tensor] = {}
        self._fused_strength = 0.0

    @classmethod
    def create(cls, model: nn.Module, config: LoraConfig, prefix: str = "lora_unet") -> "Lora":
        """Make a new LoRA for a model, which it does not change until it has learnt.

        Raises ``AdapterError`` listing the targets that the model does not have.
        """
        layers = {}
        for path in paths_ending_in(model, config.targets):
            target = model.get_submodule(path)
            assert isinstance(target, Target)
            layers[flat_name(prefix, path)] = LoraLayer(target, config.rank, config.alpha)
        return cls(prefix, layers)

    def inject(self, model: nn.Module) -> None:
        """Attach a hook to every target, and move each layer to its target's device.

        Raises ``AdapterError`` if it is injected already, or listing the targets that the model
        does not have or has in another shape.
        """
        if self._targets:
            raise AdapterError("this LoRA is injected already: eject it first")
        known = targets_by_name(model, self.prefix)
        unfit = [name for name, layer in self._layers() if not _fits(layer, known.get(name))]
        if unfit:
            raise AdapterError(
                f"{len(unfit)} of {len(self)} layers of the LoRA do not fit the model", unfit
            )
        self._targets = {name: known[name] for name in self.keys()}
        for name, layer in self._layers():
            layer.to(self._targets[name].weight.device)
        self._hook()

    def eject(self) -> None:
        """Let go of the model, which is bit for bit as it was; does nothing if not injected.

        Raises ``AdapterError`` where ``unfuse`` does.
        """
        if self._originals:
            self.unfuse()
        self._unhook()
        self._targets = {}

    def fuse(self) -> None:
        """Add the LoRA to the weights at its strength, keeping a copy of what they were.

        Raises ``AdapterError`` unless injected, and not fused already.
        """
        if not self._targets or self._originals:
            state = "fused already" if self._originals else "not injected"
            raise AdapterError(f"a LoRA that is {state} cannot be fused: inject it, then fuse once")
        self._unhook()
        self._fused_strength = self.strength
        for name, target in self._targets.items():
            self._originals[name] = target.weight.detach().clone()
            with torch.no_grad():
                target.weight.copy_(self._fused_weight(name))

    def unfuse(self) -> None:
        """Put back the weights as they were, and be injected again.

        Raises ``AdapterError``, changing nothing, if a weight (or the LoRA) was changed since, for
        instance by another LoRA fused on top: that one goes first. Also unless fused.
        """
        if not self._originals:
            raise AdapterError("a LoRA that is not fused cannot be unfused: fuse it first")
        changed = [
            name
            for name, target in self._targets.items()
            if not _same(target.weight, self._fused_weight(name))
        ]
        if changed:
            raise AdapterError(
                "weights changed since this LoRA was fused, undo that first", changed
            )
        with torch.no_grad():
            for name, original in self._originals.items():
                self._targets[name].weight.copy_(original)
        self._originals = {}
        self._hook()

    def _fused_weight(self, name: str) -> Tensor:
        """Return, every time bit for bit the same, the target's weight with the LoRA in it."""
        layer, original = self[name], self._originals[name]
        assert isinstance(layer, LoraLayer)
        fused = original.float() + self._fused_strength * layer.weight()
        return fused.to(original.dtype)

    def _layers(self) -> list[tuple[str, LoraLayer]]:
        return [(name, layer) for name, layer in self.items() if isinstance(layer, LoraLayer)]

    def _hook(self) -> None:
        for name, layer in self._layers():
            target = self._targets[name]
            self._handles.append(target.register_forward_hook(self._addition(layer)))

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _addition(
        self, layer: LoraLayer
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_target: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            addition: Tensor = self.strength * layer(inputs[0])
            return output + addition.to(output.dtype)

        return hook


def _same(a: Tensor, b: Tensor) -> bool:
    return (a.device, a.dtype) == (b.device, b.dtype) and torch.equal(a, b)


def _fits(layer: LoraLayer, target: Target | None) -> bool:
    if target is None:
        return False
    down, up = layer.lora_down.weight, layer.lora_up.weight
    return target.weight.shape == (up.shape[0], *down.shape[1:])
