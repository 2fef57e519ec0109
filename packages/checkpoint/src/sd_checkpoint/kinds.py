"""Telling from its first bytes what a file is."""

__all__ = ["PICKLE", "SAFETENSORS", "ZIP", "kind_of"]

SAFETENSORS = "a safetensors file"
ZIP = "a zip archive, as torch.save writes"
PICKLE = "a pickle, as torch.save wrote before torch 1.6"

_MAGICS = {
    b"PK\x03\x04": ZIP,
    b"PK\x05\x06": ZIP,
    b"version https://git-lfs": "a git-lfs pointer, not the file it stands for; run `git lfs pull`",
    b"GGUF": "a GGUF file",
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
}


def kind_of(start: bytes) -> str | None:
    """Return what a file with these first 512 bytes is, in words; None when it cannot be told."""
    if not start:
        return "empty; fetch it again"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40:
        return SAFETENSORS
    for magic, kind in _MAGICS.items():
        if start.startswith(magic):
            return kind
    if start[257:262] == b"ustar":
        return "a tar archive, as torch.save wrote before torch 0.1.10; convert it to safetensors"
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the file itself; fetch it again with the link for downloads"
    if start[:1] == b"\x80" and start[1:2] <= b"\x05" and len(start) > 2:
        return PICKLE
    return None
