"""A LoRA over a whole model: injected, fused, ejected."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.hooks import RemovableHandle

from sd_adapters.adapter import AdapterError
from sd_adapters.attention_projection import AttentionProjection
from sd_adapters.layer import WeightLayer
from sd_adapters.lora_config import LoraConfig
from sd_adapters.lora_kinds import new_layer
from sd_adapters.targets import Norm, Target, flat_name, places_ending_in, targets_by_name


class Lora(nn.ModuleDict):
    """A LoRA over one model: a ``WeightLayer`` for each target, under kohya's name for it.

    Hence the state dict is the file: ``lora_unet_..._to_q.lora_down.weight``. ``strength`` scales
    the whole, and ``block_strengths`` what lies under the beginnings of module paths
    ("down_blocks.0") on top of it, the first that fits; both may change while injected, and have
    no effect while fused. ``dropout`` leaves out inputs in training mode, while injected, but for
    those of torch's own attention. Under ``torch.compile`` inject before compiling.
    """

    def __init__(self, prefix: str, layers: Mapping[str, WeightLayer]) -> None:
        super().__init__(layers)
        self.prefix = prefix
        self.strength = 1.0
        self.block_strengths: dict[str, float] = {}
        self.dropout = 0.0
        self._targets: dict[str, Target | Norm] = {}
        self._handles: list[RemovableHandle] = []
        self._originals: dict[str, dict[str, Tensor]] = {}
        self._fused_strengths: dict[str, float] = {}

    @classmethod
    def create(cls, model: nn.Module, config: LoraConfig, prefix: str = "lora_unet") -> "Lora":
        """Make a new LoRA for a model, which it does not change until it has learnt.

        Raises ``AdapterError`` listing the targets that the model does not have.
        """
        layers = {
            flat_name(prefix, path): new_layer(path, target, config)
            for path, target in places_ending_in(model, config.targets)
        }
        lora = cls(prefix, layers)
        lora.dropout = config.dropout
        return lora

    def inject(self, model: nn.Module) -> None:
        """Attach a hook to every target, and move each layer to its target's device.

        Raises ``AdapterError`` if it is injected already, or listing the targets that the model
        does not have or has in another shape.
        """
        if self._targets:
            raise AdapterError("this LoRA is injected already: eject it first")
        known = targets_by_name(model, self.prefix)
        unfit = [
            name
            for name, layer in self._layers()
            if name not in known or not layer.fits(known[name])
        ]
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

        With DoRA the weights are those found now, with all that was fused before: as in the web UI,
        the order matters then. Raises ``AdapterError`` unless injected, and not fused already, and
        where the model's weights are held in another form, such as int8.
        """
        if not self._targets or self._originals:
            state = "fused already" if self._originals else "not injected"
            raise AdapterError(f"a LoRA that is {state} cannot be fused: inject it, then fuse once")
        if any(isinstance(t, nn.Module) and is_parametrized(t) for t in self._targets.values()):
            raise AdapterError(
                "weights that are made anew at every use (int8) take nothing in: leave the LoRA "
                "injected"
            )
        self._unhook()
        for name, layer in self._layers():
            target = self._targets[name]
            self._fused_strengths[name] = self._strength_of(name)
            kept = {"weight": target.weight.detach().clone()}
            if layer.bias_addition() is not None:
                assert target.bias is not None
                kept["bias"] = target.bias.detach().clone()
            self._originals[name] = kept
            self._write(name, self._fused(name))

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
            if any(not _same(getattr(target, key), t) for key, t in self._fused(name).items())
        ]
        if changed:
            raise AdapterError(
                "weights changed since this LoRA was fused, undo that first", changed
            )
        for name, originals in self._originals.items():
            self._write(name, originals)
        self._originals = {}
        self._hook()

    @torch.no_grad()
    def _fused(self, name: str) -> dict[str, Tensor]:
        """Return, every time bit for bit the same, the target's tensors with the LoRA in them."""
        layer, strength = self._layer(name), self._fused_strengths[name]
        weight = self._originals[name]["weight"]
        fused = {"weight": (weight.float() + strength * layer.addition(weight)).to(weight.dtype)}
        bias_addition = layer.bias_addition()
        if bias_addition is not None:
            bias = self._originals[name]["bias"]
            fused["bias"] = (bias.float() + strength * bias_addition).to(bias.dtype)
        return fused

    @torch.no_grad()
    def _write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        for key, tensor in tensors.items():
            getattr(self._targets[name], key).copy_(tensor)

    def _strength_of(self, name: str) -> float:
        for beginning, strength in self.block_strengths.items():
            if f"{name}_".startswith(f"{flat_name(self.prefix, beginning)}_"):
                return self.strength * strength
        return self.strength

    def _layer(self, name: str) -> WeightLayer:
        layer = self[name]
        assert isinstance(layer, WeightLayer)
        return layer

    def _layers(self) -> list[tuple[str, WeightLayer]]:
        return [(name, self._layer(name)) for name in self.keys()]

    def _hook(self) -> None:
        for name, target in self._targets.items():
            if isinstance(target, AttentionProjection):
                self._attach(name, target)
            else:
                hook = target.register_forward_hook(self._addition(name, target))
                self._handles.append(hook)

    def _attach(self, name: str, target: AttentionProjection) -> None:
        layer = self._layer(name)

        def to_weight() -> Tensor:
            return self._strength_of(name) * layer.addition(target.weight)

        def to_bias() -> Tensor:
            addition = layer.bias_addition()
            assert addition is not None
            return self._strength_of(name) * addition

        self._handles += target.attach("weight", to_weight)
        if layer.bias_addition() is not None:
            self._handles += target.attach("bias", to_bias)

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _addition(
        self, name: str, target: nn.Linear | nn.Conv2d | Norm
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        layer = self._layer(name)

        def hook(_target: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = F.dropout(inputs[0], self.dropout, training=layer.training)
            return layer.added(output, x, target, self._strength_of(name))

        return hook


def _same(a: Tensor, b: Tensor) -> bool:
    return (a.device, a.dtype) == (b.device, b.dtype) and torch.equal(a, b)
