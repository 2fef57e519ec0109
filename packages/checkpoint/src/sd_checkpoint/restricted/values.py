"""What a pickle is made of once nothing in it can act."""

from dataclasses import dataclass, field

__all__ = ["ITEMSIZE", "MAX_AXES", "Named", "NumpyType", "RefusedError", "Storage", "TensorSpec"]

MAX_AXES = 32
ITEMSIZE = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "uint16": 2,
    "int16": 2,
    "float16": 2,
    "bfloat16": 2,
    "uint32": 4,
    "int32": 4,
    "float32": 4,
    "uint64": 8,
    "int64": 8,
    "float64": 8,
    "complex64": 8,
}


class RefusedError(ValueError):
    """Say in one line why a file is not read."""


@dataclass(frozen=True, slots=True)
class Named:
    """A global that the file asks for and that is known: a name, never the thing itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of `num_bytes` bytes of the file that tensors of `dtype` are views of."""

    key: str
    dtype: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's place in a storage; `offset` and `strides` count elements.

    Raises `RefusedError` unless it lies within the storage and has no more elements than that.
    """

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def __post_init__(self) -> None:
        sizes = (self.offset, *self.shape, *self.strides)
        if (
            len(self.shape) != len(self.strides)
            or len(self.shape) > MAX_AXES
            or not all(type(n) is int and 0 <= n < 2**63 for n in sizes)
        ):
            raise RefusedError("a tensor has an impossible shape")
        length = numel = 1
        axes = 1  # like numel, but an empty tensor's other axes have to make sense too
        for n, stride in zip(self.shape, self.strides, strict=True):
            numel *= n
            axes *= n or 1
            length += (n - 1) * stride
        if axes >= 2**60:
            raise RefusedError("a tensor has an impossible shape")
        end = (self.offset + max(length, numel)) * ITEMSIZE[self.dtype] if numel else 0
        if end > self.storage.num_bytes:
            raise RefusedError(
                f"a tensor of shape {self.shape} is larger than the storage it lies in"
            )


@dataclass(slots=True)
class NumpyType:
    """The type of a numpy scalar: a code such as "f8", and the order of its bytes."""

    code: str
    order: str = field(default="<")
