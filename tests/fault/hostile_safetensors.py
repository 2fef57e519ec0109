"""Safetensors files that are broken, hostile, or something else."""

import json
import struct

from tests.fault.corpus import Hostile, adding_to, good_legacy, good_zip, one, safetensors

CASES: list[Hostile] = []
hostile = adding_to(CASES)


@hostile(".safetensors", "empty")
def empty() -> bytes:
    return b""


@hostile(".safetensors", "header should have")
def seven_bytes() -> bytes:
    return b"\x01" + bytes(6)


@hostile(".safetensors", "header should have")
def header_of_2_to_the_64() -> bytes:
    return b"\xff" * 8 + b"{}"


@hostile(".safetensors", "header should have")
def header_longer_than_the_file() -> bytes:
    return struct.pack("<Q", 100) + b"{}"


@hostile(".safetensors", "100000000 are allowed")
def header_longer_than_the_format_allows() -> bytes:
    return safetensors(b"{" + b" " * 100_000_000)


@hostile(".safetensors", "million")
def header_of_brackets() -> bytes:
    return safetensors(b'{"a":' + b"[" * 50_000_000)


@hostile(".safetensors", "million")
def header_of_numbers() -> bytes:
    return safetensors(b'{"a":[' + b"1000," * 10_000_000 + b"1]}")


@hostile(".safetensors", "nested too deeply")
def header_nested_deeply() -> bytes:
    return safetensors(b'{"a":' + b"[" * 500_000)


@hostile(".safetensors", "no JSON object")
def header_is_a_list() -> bytes:
    return safetensors([])


@hostile(".safetensors", "not a whole safetensors file")
def header_is_cut() -> bytes:
    return safetensors(b'{"a":{"dty')


@hostile(".safetensors", "codec can't decode")
def header_is_no_unicode() -> bytes:
    return safetensors(b'{"\xff":1}')


@hostile(".safetensors", "'a' stands there twice")
def key_twice() -> bytes:
    entry = json.dumps(one()["a"])
    return safetensors(f'{{"a":{entry},"a":{entry}}}'.encode(), bytes(8))


@hostile(".safetensors", "NaN")
def nan_in_the_header() -> bytes:
    return safetensors(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8))


@hostile(".safetensors", "Infinity")
def infinity_in_the_header() -> bytes:
    return safetensors(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}}', bytes(8))


@hostile(".safetensors", "5000 digits")
def number_of_5000_digits() -> bytes:
    return safetensors(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}")


@hostile(".safetensors", "impossible shape")
def shape_overflows() -> bytes:
    return safetensors(one(shape=[2**62, 4]), bytes(8))


@hostile(".safetensors", "impossible shape")
def shape_overflows_to_what_is_there() -> bytes:
    return safetensors(one(shape=[2**62 + 1, 8]), bytes(32))


@hostile(".safetensors", "impossible shape")
def empty_shape_overflows() -> bytes:
    return safetensors(one(shape=[0, 2**62, 2**62], data_offsets=[0, 0]))


@hostile(".safetensors", "impossible shape")
def shape_is_negative() -> bytes:
    return safetensors(one(shape=[-1, -2]), bytes(8))


@hostile(".safetensors", "impossible shape")
def shape_is_a_float() -> bytes:
    return safetensors(one(shape=[2.0]), bytes(8))


@hostile(".safetensors", "impossible shape")
def shape_is_a_bool() -> bytes:
    return safetensors(one(shape=[True, 2]), bytes(8))


@hostile(".safetensors", "impossible shape")
def shape_is_a_text() -> bytes:
    return safetensors(one(shape="2"), bytes(8))


@hostile(".safetensors", "impossible shape")
def shape_of_a_thousand_axes() -> bytes:
    return safetensors(one(shape=[1] * 1000 + [2]), bytes(8))


@hostile(".safetensors", "size that its shape and type give")
def shape_larger_than_its_data() -> bytes:
    return safetensors(one(shape=[3]), bytes(8))


@hostile(".safetensors", "unknown type")
def type_unknown() -> bytes:
    return safetensors(one(dtype="F33"), bytes(8))


@hostile(".safetensors", "unknown type")
def type_is_a_list() -> bytes:
    return safetensors(one(dtype=["F32"]), bytes(8))


@hostile(".safetensors", "nothing else")
def field_missing() -> bytes:
    return safetensors({"a": {"dtype": "F32", "shape": [2]}}, bytes(8))


@hostile(".safetensors", "nothing else")
def field_added() -> bytes:
    return safetensors(one(code="import os"), bytes(8))


@hostile(".safetensors", "nothing else")
def entry_is_a_list() -> bytes:
    return safetensors({"a": []})


@hostile(".safetensors", "impossible data_offsets")
def offsets_backwards() -> bytes:
    return safetensors(one(data_offsets=[8, 0]), bytes(8))


@hostile(".safetensors", "impossible data_offsets")
def offsets_three() -> bytes:
    return safetensors(one(data_offsets=[0, 4, 8]), bytes(8))


@hostile(".safetensors", "impossible data_offsets")
def offsets_beyond_64_bits() -> bytes:
    return safetensors(one(data_offsets=[2**64, 2**64 + 8]), bytes(8))


@hostile(".safetensors", "tensors end at byte")
def data_beyond_the_file() -> bytes:
    return safetensors(one(), bytes(7))


@hostile(".safetensors", "tensors end at byte")
def data_left_over() -> bytes:
    return safetensors(one(), bytes(9))


@hostile(".safetensors", "leaves a hole")
def offsets_with_a_hole() -> bytes:
    return safetensors(one(data_offsets=[4, 12]), bytes(12))


@hostile(".safetensors", "overlaps another")
def offsets_overlapping() -> bytes:
    return safetensors({**one(), "b": one(data_offsets=[4, 12])["a"]}, bytes(12))


@hostile(".safetensors", "overlaps another")
def offsets_twice_the_same() -> bytes:
    return safetensors({**one(), "b": one()["a"]}, bytes(8))


@hostile(".safetensors", "__metadata__")
def metadata_not_of_texts() -> bytes:
    return safetensors({**one(), "__metadata__": {"a": 1}}, bytes(8))


@hostile(".safetensors", "__metadata__")
def metadata_is_a_list() -> bytes:
    return safetensors({**one(), "__metadata__": []}, bytes(8))


@hostile(".safetensors", "line.nbreak")
def name_with_line_breaks() -> bytes:
    return safetensors({"line\nbreak\x1b[2J": []})


@hostile(".safetensors", "zip archive")
def zip_named_safetensors() -> bytes:
    return good_zip()


@hostile(".safetensors", "a pickle")
def pickle_named_safetensors() -> bytes:
    return good_legacy()


@hostile(".safetensors", "a web page")
def web_page() -> bytes:
    return b"\n<!DOCTYPE html><html><title>404</title></html>"


@hostile(".safetensors", "git lfs pull")
def git_lfs_pointer() -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@hostile(".safetensors", "GGUF")
def gguf() -> bytes:
    return b"GGUF\x03" + bytes(100)
