"""A reader of the pickle language that can build tensors and containers, and do nothing else.

The language is that of `pickletools`, protocols 0 to 5. `pickle.Unpickler` is not used: here a
global is looked up in a table of ours, and whatever is not in it ends the reading.
"""

import struct
from typing import Any

from .steps import STEPS
from .values import RefusedError, Storage

__all__ = ["Machine"]

_MAX_LINE = 4096
_DAMAGE = (IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error)


class Machine:
    """Read one pickle from `data`, from byte `at` on.

    Work and memory grow with the number of bytes alone: a container that stands in many places is
    one container.
    """

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below the marks
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self) -> Any:
        """Return what the pickle holds; `at` is then behind its end. Raises `RefusedError`."""
        try:
            while True:
                code = self.data[self.at]
                self.at += 1
                if code == 0x2E:  # STOP
                    return self.stack.pop()
                step = STEPS.get(code)
                if step is None:
                    raise RefusedError(
                        f"byte {self.at - 1} is no step of a pickle of tensors: {code}"
                    )
                step(self)
        except RefusedError:
            raise
        except _DAMAGE as error:
            raise RefusedError(
                f"the pickle is damaged at byte {self.at} ({type(error).__name__})"
            ) from error

    def take(self, length: int) -> bytes:
        """Return the next bytes; raises `RefusedError` when there are not so many."""
        if not 0 <= length <= len(self.data) - self.at:
            raise RefusedError(f"the pickle ends early or claims {length} bytes at byte {self.at}")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, form: str) -> int:
        """Return the next number of a `struct` form."""
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def line(self) -> bytes:
        """Return the bytes to the next line break, without it."""
        end = self.data.find(b"\n", self.at, self.at + _MAX_LINE)
        if end < 0:
            raise RefusedError(f"a line at byte {self.at} has no end")
        return self.take(end + 1 - self.at)[:-1]

    def to_mark(self) -> list[Any]:
        """Return what has been put on the stack since the last mark, and remove it."""
        items, self.stack = self.stack, self.outer.pop()
        return items
