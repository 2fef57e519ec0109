"""Files under the name of torch.save whose container is broken, hostile, or something else."""

import io
import pickle
import struct
import tarfile
import zipfile

from tests.fault.corpus import (
    Hostile,
    adding_to,
    archive,
    good_by_hand,
    good_legacy,
    good_safetensors,
    good_zip,
    tensor,
    text,
)

CASES: list[Hostile] = []
hostile = adding_to(CASES)


def legacy(value: bytes, keys: list[str], storages: bytes, *, little_endian: bool = True) -> bytes:
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": little_endian})
    head = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    held = b"\x80\x02}" + text("a") + value.replace(b"tQ", b"NtQ") + b"s."
    return head + held + pickle.dumps(keys, protocol=2) + storages


def directory(data: bytes) -> list[int]:
    """Where the entries of a zip's directory begin."""
    found, at = [], data.find(b"PK\x01\x02")
    while at >= 0:
        found.append(at)
        at = data.find(b"PK\x01\x02", at + 4)
    return found


def changed_directory(data: bytes, field: int, value: bytes) -> bytes:
    return replaced(data, directory(data)[0] + field, value)


def replaced(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


@hostile(".ckpt", "compressed or encrypted")
def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archived:
        archived.writestr("archive/data.pkl", b"\x80\x02}." + bytes(50_000_000))
    return buffer.getvalue()


@hostile(".ckpt", "compressed or encrypted")
def zip_encrypted() -> bytes:
    return changed_directory(good_zip(), 8, b"\x01\x00")


@hostile(".ckpt", "where something else lies")
def zip_entries_in_one_place() -> bytes:
    data = good_zip()
    first, second = directory(data)[:2]
    return replaced(data, second + 42, data[first + 42 : first + 46])


@hostile(".ckpt", "where something else lies|directory is damaged")
def zip_entry_outside_the_file() -> bytes:
    return changed_directory(good_zip(), 42, b"\xf0\xff\xff\x7f")


@hostile(".ckpt", "where something else lies")
def zip_entry_longer_than_the_file() -> bytes:
    return changed_directory(good_zip(), 20, b"\xf0\xff\xff\x7f" * 2)


@hostile(".ckpt", "under two names")
def zip_entry_of_two_names() -> bytes:
    data = good_by_hand()
    return data.replace(b"archive/byteorder", b"archive/byteordeR", 1)


@hostile(".ckpt", "twice")
def zip_entry_twice() -> bytes:
    return archive(b"\x80\x02}.", twin1=b"", twin2=b"").replace(b"archive/twin2", b"archive/twin1")


@hostile(".ckpt", "no directory")
def zip_cut_short() -> bytes:
    return good_zip()[:-30]


@hostile(".ckpt", "directory")
def zip_of_more_entries_than_it_has() -> bytes:
    data = good_by_hand()
    return replaced(data, len(data) - 14, b"\x09\x00\x09\x00")


@hostile(".ckpt", "directory")
def zip_directory_outside_the_file() -> bytes:
    data = good_by_hand()
    return replaced(data, len(data) - 10, b"\xf0\xff\xff\x7f" * 2)


@hostile(".ckpt", "directory is damaged")
def zip_of_64_bits_without_their_record() -> bytes:
    data = good_by_hand()
    return replaced(data, len(data) - 10, b"\xff" * 8)


@hostile(".ckpt", "0 data.pkl")
def zip_of_something_else() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archived:
        archived.writestr("word/document.xml", "<a/>")
    return buffer.getvalue()


@hostile(".ckpt", "0 data.pkl")
def zip_that_leads_out() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archived:
        archived.writestr("../../data.pk", b"\x80\x02}.")
    return buffer.getvalue()


@hostile(".ckpt", "2 data.pkl")
def zip_of_two_pickles() -> bytes:
    return archive(b"\x80\x02}.", **{"more/data.pkl": b"\x80\x02}."})


@hostile(".pt", "TorchScript")
def torchscript() -> bytes:
    return archive(b"\x80\x02}.", **{"constants.pkl": b"\x80\x02)."})


@hostile(".pt", "big-endian")
def big_endian() -> bytes:
    return good_by_hand().replace(b"little", b"bigend")


@hostile(".bin", "storages end at byte")
def legacy_file_cut_short() -> bytes:
    return good_legacy()[:-1]


@hostile(".bin", "lists a storage that no tensor lies in")
def legacy_file_with_a_strange_storage() -> bytes:
    return legacy(tensor(), ["1"], struct.pack("<q", 4) + bytes(16))


@hostile(".bin", "not there or has another size")
def legacy_file_with_a_storage_of_another_size() -> bytes:
    return legacy(tensor(), ["0"], struct.pack("<q", 2**40) + bytes(16))


@hostile(".bin", "lists a storage .* twice")
def legacy_file_with_a_storage_twice() -> bytes:
    return legacy(tensor(), ["0", "0"], (struct.pack("<q", 4) + bytes(16)) * 2)


@hostile(".bin", "big-endian")
def legacy_file_of_a_big_endian_machine() -> bytes:
    return legacy(tensor(), ["0"], struct.pack(">q", 4) + bytes(16), little_endian=False)


@hostile(".ckpt", "a tar archive")
def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archived:
        archived.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


@hostile(".ckpt", "rename it to safetensors_named_ckpt.safetensors")
def safetensors_named_ckpt() -> bytes:
    return good_safetensors()


@hostile(".ckpt", "a web page")
def web_page_named_ckpt() -> bytes:
    return b"<html><title>404</title>"


@hostile(".ckpt", "empty")
def empty_ckpt() -> bytes:
    return b""


@hostile(".ckpt", "of no known kind")
def noise() -> bytes:
    return bytes(range(1, 200))
