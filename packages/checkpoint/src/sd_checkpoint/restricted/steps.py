"""The steps of the pickle language, each under its byte."""

from __future__ import annotations

import encodings.raw_unicode_escape  # noqa: F401 by now, for the child can open no file later
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .names import as_key, build, call, look_up, make_new, storage_dtype
from .values import ITEMSIZE, Named, RefusedError, Storage

if TYPE_CHECKING:
    from .machine import Machine

__all__ = ["STEPS"]

_MAX_INT = 32  # bytes
_PROTOCOL = 5


def _push(make: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        value = make(m)  # first, for it may change which stack is on top
        m.stack.append(value)

    return step


def _mark(m: Machine) -> None:
    m.outer.append(m.stack)
    m.stack = []


def _pop(m: Machine) -> None:
    m.stack.pop() if m.stack else m.to_mark()


def _text_line(m: Machine) -> str:
    return m.line().decode("raw-unicode-escape")


def _quoted_line(m: Machine) -> str | bytes:
    text = m.line()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"') or b"\\" in text:
        raise RefusedError("a text is not quoted as torch.save does it")
    return _old_text(text[1:-1])


def _old_text(data: bytes) -> str | bytes:
    """Read a text of Python 2, where texts and bytes were one thing."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _int_line(m: Machine) -> int:
    line = m.line()
    if line in (b"00", b"01"):
        return line == b"01"
    return _bounded(int(line[:80]))


def _long_line(m: Machine) -> int:
    return _bounded(int(m.line().removesuffix(b"L")[:80]))


def _long(form: str) -> Callable[[Machine], int]:
    def make(m: Machine) -> int:
        length = m.number(form)
        if length > _MAX_INT:
            raise RefusedError(f"a number has {length} bytes")
        return int.from_bytes(m.take(length), "little", signed=True)

    return make


def _bounded(value: int) -> int:
    if value.bit_length() > 8 * _MAX_INT:
        raise RefusedError(f"a number has {value.bit_length()} bits")
    return value


def _sized(form: str, read: Callable[[bytes], Any]) -> Callable[[Machine], Any]:
    return lambda m: read(m.take(m.number(form)))


def _utf8(data: bytes) -> str:
    return data.decode("utf-8")


def _tuple(length: int) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        if len(m.stack) < length:
            raise IndexError
        items = tuple(m.stack[-length:])
        m.stack[-length:] = [items]

    return step


def _append(m: Machine) -> None:
    value = m.stack.pop()
    _list(m).append(value)


def _appends(m: Machine) -> None:
    items = m.to_mark()
    _list(m).extend(items)


def _list(m: Machine) -> list[Any]:
    if type(m.stack[-1]) is not list:
        raise RefusedError("the file adds items to something that is no list")
    found: list[Any] = m.stack[-1]
    return found


def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _set(m, [key, value])


def _set(m: Machine, items: list[Any]) -> None:
    if not isinstance(m.stack[-1], dict) or len(items) % 2:
        raise RefusedError("the file adds keys to something that is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        m.stack[-1][as_key(key)] = value


def _dict(m: Machine) -> None:
    items = m.to_mark()
    m.stack.append({})
    _set(m, items)


def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise RefusedError("the file asks for something whose name is no text")
    m.stack.append(look_up(module, name))


def _refused_class(m: Machine) -> None:
    look_up(_utf8(m.line()), _utf8(m.line()))
    raise RefusedError("the file makes objects as only code is stored")


def _two(function: Callable[[Any, Any], Any]) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        arguments, target = m.stack.pop(), m.stack.pop()
        m.stack.append(function(target, arguments))

    return step


def _build(m: Machine) -> None:
    state = m.stack.pop()
    build(m.stack[-1], state)


def _put(index: Callable[[Machine], int]) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        m.memo[index(m)] = m.stack[-1]

    return step


def _get(index: Callable[[Machine], int]) -> Callable[[Machine], Any]:
    return lambda m: m.memo[index(m)]


def _persistent(m: Machine) -> Any:
    match m.stack.pop():
        case ("module", Named() as kind, *_):
            return kind
        case ("storage", kind, str(key), _, int(numel), *rest) if not any(rest):
            dtype = storage_dtype(kind)
            if not 0 <= numel < 2**59:
                raise RefusedError(f"the storage {key[:80]} has {numel} elements")
            new = Storage(key, dtype, numel * ITEMSIZE[dtype])
            if m.storages.setdefault(key, new).num_bytes != new.num_bytes:
                raise RefusedError(f"the storage {key[:80]} has two sizes")
            return new
    raise RefusedError("the file refers to something outside it that is no storage")


def _frozen(value: Any) -> Callable[[Machine], Any]:
    return lambda _: value


def _protocol(m: Machine) -> None:
    if m.number("<B") > _PROTOCOL:
        raise RefusedError(f"the pickle is of a protocol beyond {_PROTOCOL}")


STEPS: dict[int, Callable[[Machine], None]] = {
    ord("("): _mark,
    ord("0"): _pop,
    ord("1"): lambda m: (m.to_mark(), None)[1],
    ord("2"): _push(lambda m: m.stack[-1]),
    ord("N"): _push(_frozen(None)),
    0x88: _push(_frozen(True)),
    0x89: _push(_frozen(False)),
    ord("I"): _push(_int_line),
    ord("L"): _push(_long_line),
    ord("F"): _push(lambda m: float(m.line()[:80])),
    ord("J"): _push(lambda m: m.number("<i")),
    ord("K"): _push(lambda m: m.number("<B")),
    ord("M"): _push(lambda m: m.number("<H")),
    ord("G"): _push(lambda m: m.number(">d")),
    0x8A: _push(_long("<B")),
    0x8B: _push(_long("<i")),
    ord("S"): _push(_quoted_line),
    ord("V"): _push(_text_line),
    ord("T"): _push(_sized("<i", _old_text)),
    ord("U"): _push(_sized("<B", _old_text)),
    ord("X"): _push(_sized("<I", _utf8)),
    0x8C: _push(_sized("<B", _utf8)),
    0x8D: _push(_sized("<Q", _utf8)),
    ord("B"): _push(_sized("<I", bytes)),
    ord("C"): _push(_sized("<B", bytes)),
    0x8E: _push(_sized("<Q", bytes)),
    0x96: _push(_sized("<Q", bytes)),
    ord(")"): _push(_frozen(())),
    ord("t"): _push(lambda m: tuple(m.to_mark())),
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    ord("]"): _push(lambda _: []),
    ord("l"): _push(lambda m: m.to_mark()),
    0x8F: _push(lambda _: []),  # a set
    0x91: _push(lambda m: m.to_mark()),  # a frozen set
    ord("a"): _append,
    ord("e"): _appends,
    0x90: _appends,
    ord("}"): _push(lambda _: {}),
    ord("d"): _dict,
    ord("s"): _set_item,
    ord("u"): lambda m: _set(m, m.to_mark()),
    ord("p"): _put(lambda m: int(m.line()[:20])),
    ord("q"): _put(lambda m: m.number("<B")),
    ord("r"): _put(lambda m: m.number("<I")),
    0x94: _put(lambda m: len(m.memo)),
    ord("g"): _push(_get(lambda m: int(m.line()[:20]))),
    ord("h"): _push(_get(lambda m: m.number("<B"))),
    ord("j"): _push(_get(lambda m: m.number("<I"))),
    ord("c"): _push(lambda m: look_up(_utf8(m.line()), _utf8(m.line()))),
    0x93: _stack_global,
    ord("i"): _refused_class,
    ord("R"): _two(call),
    0x81: _two(make_new),
    ord("b"): _build,
    ord("Q"): _push(_persistent),
    0x80: _protocol,
    0x95: lambda m: (m.take(8), None)[1],  # a frame
}
