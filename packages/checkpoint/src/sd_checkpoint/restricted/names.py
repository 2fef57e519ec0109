"""The names that a file of tensors may ask for, and what they stand for here.

Each is ours, written for the purpose; nothing that a file names is ever imported or called.
"""

import struct
from collections.abc import Callable
from typing import Any

from .values import ITEMSIZE, Named, NumpyType, RefusedError, Storage, TensorSpec

__all__ = ["as_key", "build", "call", "look_up", "make_new", "storage_dtype"]

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "UntypedStorage": "uint8",
}
DTYPES = {**{name: name for name in ITEMSIZE}, "half": "float16", "float": "float32"}
# Callbacks stand in whole training checkpoints of the Stable Diffusion line; their state is passed
# over.
OPAQUE = {
    Named(module, "ModelCheckpoint")
    for package in ("pytorch_lightning", "lightning.pytorch")
    for module in (f"{package}.callbacks", f"{package}.callbacks.model_checkpoint")
}
# Holds the vectors of the first textual inversions.
PARAMETER_DICT = Named("torch.nn.modules.container", "ParameterDict")

_NUMPY = {
    **{f"i{n}": code for n, code in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))},
    **{f"u{n}": code for n, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))},
    "f2": "e",
    "f4": "f",
    "f8": "d",
    "b1": "?",
}
_SCALARS = (str, int, float, bool, bytes, type(None), Named)


class _ParameterDict(dict[Any, Any]):
    """Stands for a `torch.nn.ParameterDict`: what its state holds as parameters."""


def look_up(module: str, name: str) -> Named:
    """Return the name if it is known; raise `RefusedError`, naming it, if it is not."""
    known = Named(module, name)
    if (
        known in CALLS
        or known in OPAQUE
        or known == PARAMETER_DICT
        or (module in ("torch", "torch.storage") and name in STORAGES)
        or (module == "torch" and name in DTYPES)
    ):
        return known
    raise RefusedError(
        f"refused: the file asks for {str(known)[:200]}, which is code, not weights; "
        "take it as safetensors, or convert it where you trust it"
    )


def call(function: Any, arguments: Any) -> Any:
    """Return what the known function stands for makes of a tuple of arguments."""
    if type(function) is Named and function in CALLS:
        return CALLS[function](*_typed(arguments, tuple))
    return make_new(function, arguments)


def make_new(kind: Any, arguments: Any) -> Any:
    """Return what an empty object of the known class `kind` stands for."""
    if kind == PARAMETER_DICT:
        return _ParameterDict()
    if kind in OPAQUE:
        return None
    return call(kind, arguments) if kind in _EMPTY else _refuse_call(kind)


def build(value: Any, state: Any) -> None:
    """Give an object its state, where that means anything here."""
    if type(value) is NumpyType:
        order = _typed(state, tuple)[1]
        if order not in tuple("<>=|"):
            raise RefusedError("a numpy scalar has no known order of bytes")
        value.order = order
    elif type(value) is _ParameterDict:
        value.update(_typed(_typed(state, dict).get("_parameters", {}), dict))
    elif type(value) is not dict and value is not None:
        raise RefusedError("the file sets the state of something that has none")


def storage_dtype(kind: Any) -> str:
    """Return the dtype of a storage class."""
    if type(kind) is not Named or kind.name not in STORAGES:
        raise RefusedError("a storage is of no known type")
    return STORAGES[kind.name]


def as_key(value: Any) -> Any:
    """Return `value` if it may be a key of a dict: a scalar, or a tuple of scalars."""
    parts = value if type(value) is tuple else (value,)
    if len(parts) > 16 or not all(type(part) in _SCALARS for part in parts):
        raise RefusedError("a dict has a key that is neither a text nor a number")
    return value


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    return {as_key(key): value for key, value in pairs}


def _collection(items: Any = ()) -> list[Any]:
    return list(_typed(items, list, tuple))


def _size(items: Any = ()) -> tuple[Any, ...]:
    return tuple(_typed(items, list, tuple))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> TensorSpec:
    return _view(_typed(storage, Storage).dtype, storage, (offset, shape, strides), None)


def _tensor_v2(
    storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any
) -> TensorSpec:  # rest: requires_grad, hooks, metadata
    return _view(_typed(storage, Storage).dtype, storage, (offset, shape, strides), rest[2:])


def _tensor_v3(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> TensorSpec:
    dtype = _typed(rest[2], Named)  # rest: requires_grad, hooks, dtype, metadata
    return _view(DTYPES[dtype.name], storage, (offset, shape, strides), rest[3:])


def _view(dtype: str, storage: Any, place: tuple[Any, Any, Any], metadata: Any) -> TensorSpec:
    offset, shape, strides = place
    if metadata and metadata[0]:
        raise RefusedError("a tensor is stored as the conjugate or the negative of another")
    shape, strides = _typed(shape, tuple, list), _typed(strides, tuple, list)
    return TensorSpec(_typed(storage, Storage), dtype, tuple(shape), tuple(strides), offset)


def _parameter(data: Any, *_: Any) -> TensorSpec:
    tensor: TensorSpec = _typed(data, TensorSpec)
    return tensor


def _numpy_type(code: Any, *_: Any) -> NumpyType:
    return NumpyType(_typed(code, str))


def _numpy_scalar(kind: Any, data: Any) -> Any:
    kind, data = _typed(kind, NumpyType), _typed(data, bytes)
    if kind.code not in _NUMPY:
        raise RefusedError(f"a numpy scalar is of the type {kind.code[:20]}")
    return struct.unpack(("<" if kind.order in "<|=" else ">") + _NUMPY[kind.code], data)[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"bytes are stored as text in {str(encoding)[:20]}")
    return str(_typed(text, str)).encode("latin-1")


def _opaque(*_: Any) -> None:
    return None


def _typed(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise RefusedError("a tensor or a container is not put together as torch.save does it")
    return value


def _refuse_call(function: Any) -> Any:
    name = str(function)[:200] if type(function) is Named else "something that it made itself"
    raise RefusedError(f"refused: the file calls {name}, which is code, not weights")


_EMPTY = {Named("collections", "OrderedDict"), Named("torch", "Size")}
CALLS: dict[Named, Callable[..., Any]] = {
    Named("collections", "OrderedDict"): _ordered_dict,
    Named("builtins", "set"): _collection,
    Named("__builtin__", "set"): _collection,
    Named("torch", "Size"): _size,
    Named("torch", "device"): _opaque,
    Named("torch._utils", "_rebuild_tensor"): _tensor,
    Named("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    Named("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    Named("torch._utils", "_rebuild_parameter"): _parameter,
    Named("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    Named("torch.nn.parameter", "Parameter"): _parameter,
    Named("numpy", "dtype"): _numpy_type,
    Named("numpy.core.multiarray", "scalar"): _numpy_scalar,
    Named("numpy._core.multiarray", "scalar"): _numpy_scalar,
    Named("_codecs", "encode"): _encode,
}
