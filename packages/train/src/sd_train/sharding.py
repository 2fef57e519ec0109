"""Weights, gradients, averages and optimizer state shared out among processes (FSDP2).

Zhao et al., "PyTorch FSDP", arXiv:2304.11277, in PyTorch's second form, `fully_shard`: a parameter
is a `DTensor`, of which each process has some rows, and is whole only while its layer computes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from sd_ops import use_fast_paths
from sd_train.config import TrainerConfig
from sd_train.errors import TrainError
from sd_train.processes import count, is_first, start_alike
from sd_train.task import Task, layers_of
from sd_train.torch_needed import SHARING, check_torch


def shard(task: Task, config: TrainerConfig) -> None:
    """Share out the modules of a task that consist of layers; what else learns stays whole.

    Before anything holds their parameters. Raises TrainError where no module can be shared out, and
    where torch is too old for it.
    """
    check_torch(SHARING, "trainer.parallel = 'fsdp'", "set trainer.parallel = 'ddp'")
    layers = set(layers_of(task))
    if not layers:
        raise TrainError(
            "trainer.parallel = 'fsdp' shares out the UNet or DiT of `train`, which this run does "
            "not train; set trainer.parallel = 'ddp'"
        )
    for module in task.modules().values():
        inside = [each for each in module.modules() if each in layers]
        if inside:
            _shard(module, inside, config)


def _shard(module: nn.Module, layers: Sequence[nn.Module], config: TrainerConfig) -> None:
    # Imported here and below: it takes long, and most runs have one process.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    start_alike([module])
    # What those keep of a kernel goes by versions, which gathering does not count up.
    use_fast_paths(module, False)
    if any(_is_channels_last(parameter) for parameter in module.parameters()):
        module.register_forward_pre_hook(_with_channels_last)
    module.to(memory_format=torch.contiguous_format)  # others cannot be shared out
    # Autocast chooses what computes in which type: timesteps, for one, must not be rounded.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if config.precision == "bf16" else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    mesh = init_device_mesh(next(module.parameters()).device.type, (count(),))
    for each in (*layers, module):
        # The root, too, is whole only while it computes: averages may take its weights' place.
        fully_shard(each, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        assert isinstance(each, FSDPModule)
        # Each process' losses are shares of the step's already; and gloo has no other sum.
        each.set_gradient_divide_factor(1.0)
        each.set_force_sum_reduction_for_comms(True)


def _is_channels_last(tensor: Tensor) -> bool:
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return last and not tensor.is_contiguous()


def _with_channels_last(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    # Convolutions take over their input's layout, and so dropout its order.
    return tuple(
        each.contiguous(memory_format=torch.channels_last)
        if isinstance(each, Tensor) and each.ndim == 4
        else each
        for each in inputs
    )


def is_sharded(tensor: Tensor) -> bool:
    """Tell whether this process has but a part of a tensor."""
    if count() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def is_shared_out(module: nn.Module) -> bool:
    """Tell whether this process has but parts of a module's weights."""
    return any(is_sharded(parameter) for parameter in module.parameters())


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor, in the same memory; of one that is whole, all."""
    if not is_sharded(tensor):
        return tensor.detach()
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    with torch.no_grad():
        return tensor.to_local().detach()


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Return of a whole tensor the part that this process has of `like`; all where that is whole.

    Without a word to the others, who must have the same.
    """
    if not is_sharded(like):
        return whole
    return local(_distributed(whole, like))


def shared_out(whole: Tensor, like: Tensor) -> Tensor:
    """Share out a whole tensor as `like` is; see `part_of`."""
    return _distributed(whole, like) if is_sharded(like) else whole


def _distributed(whole: Tensor, like: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    there = whole.to(like.device)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


def gathered(part: Tensor, like: Tensor) -> Tensor:
    """Join the parts that the processes have, each its own as of `like`; all take part."""
    if not is_sharded(like):
        return part
    from torch.distributed.tensor import DTensor

    assert isinstance(like, DTensor)
    shape, stride = like.shape, like.stride()
    joined = DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=shape, stride=stride
    )
    whole: Tensor = joined.full_tensor()
    return whole


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norm (0-d) of all gradients, of those that are shared out with all their parts."""
    parts = [local(gradient) for gradient in gradients if is_sharded(gradient)]
    norm = get_total_norm([gradient for gradient in gradients if not is_sharded(gradient)])
    if not parts:
        return norm
    squares = get_total_norm(parts).square()
    dist.all_reduce(squares)
    return (norm.square() + squares).sqrt()


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float, norm: Tensor) -> None:
    """Scale the gradients, of norm `norm`, so that it is at most `limit`."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not any(is_sharded(gradient) for gradient in gradients):
        clip_grads_with_norm_(parameters, limit, norm, foreach=True)
        return
    scale = torch.clamp(limit / (norm + 1e-6), max=1.0)
    torch._foreach_mul_([local(gradient) for gradient in gradients], scale)


@contextmanager
def whole(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Let the first process's modules hold all of their weights, on the CPU, to be written.

    All processes take part; the modules must not compute meanwhile.
    """
    shared: list[tuple[nn.Module, str, nn.Parameter]] = []
    for module in modules.values():
        for layer in module.modules():
            for name, parameter in list(layer.named_parameters(recurse=False)):
                if is_sharded(parameter):
                    full = gathered(local(parameter), parameter)
                    if is_first():
                        shared.append((layer, name, parameter))
                        kept = nn.Parameter(full.cpu(), requires_grad=False)
                        layer.register_parameter(name, kept)
    try:
        yield
    finally:
        for layer, name, parameter in shared:
            layer.register_parameter(name, parameter)
