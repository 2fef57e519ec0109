"""Files of torch.save whose pickle is broken or hostile."""

import os
import pickle
import struct

import torch

from tests.fault.corpus import (
    Call,
    Hostile,
    adding_to,
    archive,
    holding,
    ints,
    saved,
    storage,
    tensor,
    text,
)

CASES: list[Hostile] = []
hostile = adding_to(CASES)


def asks_for(module: str, name: str) -> None:
    def write() -> bytes:
        return holding(f"c{module}\n{name}\n(".encode() + text("echo harm") + b"tR")

    write.__name__ = f"asks_for_{module}_{name}"
    hostile(".ckpt", rf"the file asks for {module}\.{name}, which is code")(write)


for _module, _name in (
    ("posix", "system"),
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("__builtin__", "exec"),
    ("subprocess", "Popen"),
    ("torch", "load"),
    ("torch.storage", "_load_from_bytes"),
    ("torch._utils", "_rebuild_sparse_tensor"),
    ("collections", "OrderedDict.__init__.__globals__"),
    ("numpy", "load"),
):
    asks_for(_module, _name)


@hostile(".ckpt", r"asks for posix\.system, which is code")
def name_from_the_stack() -> bytes:
    return holding(text("posix") + text("system") + b"\x93(" + text("echo harm") + b"tR")


@hostile(".ckpt", r"asks for posix\.system, which is code")
def instance_of_a_function() -> bytes:
    return holding(b"(" + text("echo harm") + b"iposix\nsystem\n")


@hostile(".bin", r"asks for \S*\.system, which is code")
def legacy_file_with_a_call() -> bytes:
    return saved({"a": torch.zeros(1), "b": Call(os.system, "true")}, new=False)


@hostile(".pt", "none that torch.save wrote")
def plain_pickle_of_python() -> bytes:
    return pickle.dumps({"a": 1}, protocol=2)


@hostile(".ckpt", "is no step of a pickle of tensors")
def extension_registry() -> bytes:
    return holding(b"\x82\x01")


@hostile(".ckpt", "is no step of a pickle of tensors")
def object_by_class_on_the_stack() -> bytes:
    return holding(b"(ctorch\nSize\no")


@hostile(".ckpt", "is no step of a pickle of tensors")
def persistent_id_as_a_line() -> bytes:
    return holding(b"Pfile:///etc/passwd\n")


@hostile(".ckpt", "outside it that is no storage")
def persistent_id_of_a_file() -> bytes:
    return holding(b"(" + text("file") + text("/etc/passwd") + b"tQ")


@hostile(".ckpt", "calls something that it made itself")
def call_of_a_text() -> bytes:
    return holding(text("os.system") + b"(" + text("true") + b"tR")


@hostile(".ckpt", "calls torch.FloatStorage")
def call_of_a_storage_class() -> bytes:
    return holding(b"ctorch\nFloatStorage\n(tR")


@hostile(".ckpt", "sets the state")
def state_of_a_tensor() -> bytes:
    return holding(tensor() + b"}b")


@hostile(".ckpt", "nested too deeply or hold too much")
def laughs_by_the_billion() -> bytes:
    return holding(b"]" + b"q\x000(h\x00h\x00l" * 40)  # a list of two times the list before


@hostile(".ckpt", "nested too deeply or hold too much")
def list_within_itself() -> bytes:
    return holding(b"]q\x00h\x00a")


@hostile(".ckpt", "nested too deeply or hold too much")
def lists_nested_very_deep() -> bytes:
    return holding(b"(" * 300_000 + b"l" * 300_000)


@hostile(".ckpt", "nested too deeply or hold too much")
def tuples_nested_very_deep() -> bytes:
    return holding(b")" + b"\x85" * 300_000)


@hostile(".ckpt", "neither a text nor a number")
def key_nested_very_deep() -> bytes:
    return holding(b"})" + b"\x85" * 300_000 + b"Ns")


@hostile(".ckpt", "nested too deeply or hold too much")
def too_many_nothings() -> bytes:
    return holding(b"(" + b"N" * 300_000 + b"l")


@hostile(".ckpt", "its texts are too long")
def one_text_a_hundred_thousand_times() -> bytes:
    return holding(b"(" + text("x" * 1000) + b"q\x00" + b"h\x00" * 100_000 + b"l")


@hostile(".ckpt", "needs too much memory")
def forty_million_lists() -> bytes:
    return holding(b"(" + b"]" * 40_000_000 + b"l")


@hostile(".ckpt", "a number has 2147483647 bytes")
def number_of_two_gigabytes() -> bytes:
    return holding(b"\x8b\xff\xff\xff\x7f")


@hostile(".ckpt", "claims -1 bytes")
def number_of_negative_length() -> bytes:
    return holding(b"\x8b\xff\xff\xff\xff")


@hostile(".ckpt", "claims 1152921504606846976 bytes")
def bytes_of_an_exabyte() -> bytes:
    return holding(b"\x8e" + struct.pack("<Q", 2**60))


@hostile(".ckpt", "claims 4294967295 bytes")
def text_of_four_gigabytes() -> bytes:
    return holding(b"X\xff\xff\xff\xff")


@hostile(".ckpt", "has no end")
def line_without_end() -> bytes:
    return holding(b"S'" + b"x" * 10_000)


@hostile(".ckpt", "damaged")
def int_of_no_digits() -> bytes:
    return holding(b"Ix\n")


@hostile(".ckpt", "damaged")
def text_that_is_no_unicode() -> bytes:
    return holding(b"X\x01\x00\x00\x00\xff")


@hostile(".ckpt", "that is no Unicode")
def text_of_a_lone_surrogate() -> bytes:
    return holding(b"V\\ud800\n")


@hostile(".ckpt", "damaged")
def nothing_on_the_stack() -> bytes:
    return holding(b"0000")


@hostile(".ckpt", "damaged")
def mark_missing() -> bytes:
    return holding(b"t")


@hostile(".ckpt", "damaged")
def memo_missing() -> bytes:
    return holding(b"h\x07")


@hostile(".ckpt", "damaged")
def no_stop() -> bytes:
    return archive(b"\x80\x02}")


@hostile(".ckpt", "protocol")
def protocol_200() -> bytes:
    return archive(b"\x80\xc8}.")


@hostile(".ckpt", "no tensors by name")
def no_tensor_at_all() -> bytes:
    return archive(b"\x80\x02}.")


@hostile(".ckpt", "not a dict of tensors")
def number_alone() -> bytes:
    return archive(b"\x80\x02K\x07.")


@hostile(".ckpt", "bare storage")
def storage_alone() -> bytes:
    return holding(storage())


@hostile(".ckpt", "larger than the storage")
def tensor_beyond_its_storage() -> bytes:
    return holding(tensor(shape=ints(5)))


@hostile(".ckpt", "larger than the storage")
def tensor_from_beyond_its_storage() -> bytes:
    return holding(tensor(offset=1))


@hostile(".ckpt", "larger than the storage")
def tensor_striding_beyond_its_storage() -> bytes:
    return holding(tensor(shape=ints(2), strides=ints(4)))


@hostile(".ckpt", "larger than the storage")
def tensor_of_a_terabyte_in_one_float() -> bytes:
    return holding(tensor(shape=ints(2**38), strides=ints(0)))


@hostile(".ckpt", "impossible shape")
def tensor_of_overflowing_shape() -> bytes:
    return holding(tensor(shape=ints(2**62, 4), strides=ints(0, 0)))


@hostile(".ckpt", "impossible shape")
def tensor_of_negative_stride() -> bytes:
    return holding(tensor(offset=3, strides=ints(-1)))


@hostile(".ckpt", "impossible shape")
def tensor_of_negative_offset() -> bytes:
    return holding(tensor(offset=-4))


@hostile(".ckpt", "impossible shape")
def tensor_of_fewer_strides_than_axes() -> bytes:
    return holding(tensor(shape=ints(2, 2)))


@hostile(".ckpt", "not put together as torch.save does")
def tensor_of_a_text() -> bytes:
    return holding(tensor(of=text("0")))


@hostile(".ckpt", "no known type")
def storage_of_a_function() -> bytes:
    return holding(tensor(of=storage(kind=b"ctorch\nSize\n")))


@hostile(".ckpt", "not there or has another size")
def storage_absent() -> bytes:
    return holding(tensor(of=storage("../../etc/passwd")))


@hostile(".ckpt", "not there or has another size")
def storage_of_another_size() -> bytes:
    return holding(tensor(of=storage(numel=5)))


@hostile(".ckpt", "has two sizes")
def storage_of_two_sizes() -> bytes:
    return holding(tensor() + b"0" + tensor(of=storage(numel=3)))


@hostile(".ckpt", "elements")
def storage_of_negative_size() -> bytes:
    return holding(tensor(of=storage(numel=-4)))
