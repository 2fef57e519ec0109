"""Where the files of a tar file lie: one pass over its headers, with nothing unpacked."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from sd_pipeline.printable import printable
from sd_train.entries import Found, Skipped
from sd_train.tar_member import TarMember

# How compressed files begin, and what compressed them.
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_BLOCK = 512
_MAX_HEADER = 2**20
_MEND = "fetch the shard again"


class _TarError(Exception):
    """Say what is wrong with a tar file: `kind` is it in a word or two."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


class _HeaderFile(io.FileIO):
    """A file of which only headers are read: a size that lies costs no memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_HEADER:
            raise _TarError("damaged", f"is damaged (a header of {size} bytes); {_MEND}")
        return super().read(size) or b""


def index_tar(shard: Path, found: Found) -> list[TarMember]:
    """Return the plain files of a tar file in their order; name in `found` what else it has.

    Links, devices, sparse files and names that come twice are left out. Of a tar file that is cut
    off or damaged, what lies whole before that is returned.
    """
    members: list[TarMember] = []
    seen: set[str] = set()
    try:
        for info in _headers(shard):
            member = TarMember(shard, info.name, info.offset_data, info.size)
            problem = _problem(info, seen)
            if problem is not None:
                found.skipped.append(Skipped(str(member), *problem))
            elif info.isdir():
                found.others.append(Skipped(str(member), "a folder", "folder"))
            else:
                seen.add(info.name)
                members.append(member)
    except _TarError as error:
        found.skipped.append(Skipped(str(shard), str(error), error.kind))
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); mend it or leave it out"
        found.skipped.append(Skipped(str(shard), reason, "unreadable"))
    return members


def _headers(shard: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of what lies whole in a tar file; raise _TarError for what is amiss."""
    with _HeaderFile(shard) as file:
        end = file.seek(0, io.SEEK_END)
        file.seek(0)
        place = -1
        with _opened(file, end) as tar:
            while (info := _next(tar)) is not None:
                # Negative sizes lead back to headers that were read already.
                if info.offset <= place or info.size < 0:
                    raise _TarError("damaged", f"is damaged (headers in a circle); {_MEND}")
                place = info.offset
                in_one_piece = info.isreg() and not info.issparse()
                if in_one_piece and info.offset_data + info.size > end:
                    raise _TarError("truncated", f"ends within {printable(info.name)}; {_MEND}")
                yield info
                tar.members.clear()  # type: ignore[attr-defined]  # it would grow with the shard
            _check_end(file, tar.offset)


def _opened(file: _HeaderFile, end: int) -> tarfile.TarFile:
    if not end:
        raise _TarError("empty", f"is empty (0 bytes); {_MEND} or delete it")
    try:
        return tarfile.open(fileobj=file, mode="r:", encoding="utf-8")
    except _TarError:
        raise
    except Exception as error:
        file.seek(0)
        start = file.read(8)
        for magic, packer in _COMPRESSED.items():
            if start.startswith(magic):
                what = f"is compressed with {packer}, so no picture can be sought in it"
                raise _TarError("compressed", f"{what}; unpack it to a plain .tar") from error
        raise _TarError("not a tar file", f"is no tar file; {_MEND} or leave it out") from error


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return tar.next()
    except _TarError:
        raise
    except Exception as error:  # headers of headers raise whatever their bytes provoke
        told = printable(str(error) or type(error).__name__)
        cut = "unexpected end" in told
        what = "ends too early" if cut else "is damaged"
        raise _TarError("truncated" if cut else "damaged", f"{what} ({told}); {_MEND}") from error


def _check_end(file: io.FileIO, place: int) -> None:
    """Look at why no header was found: tarfile ends in silence where one is damaged or missing."""
    file.seek(place)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise _TarError("truncated", f"ends before the mark of its end; {_MEND}")
    if any(block):
        raise _TarError("damaged", f"is damaged (no header at byte {place:,}); {_MEND}")


def _problem(info: tarfile.TarInfo, seen: set[str]) -> tuple[str, str] | None:
    """Return why a member is no plain file of its own, and the reason in a word or two."""
    if info.issym() or info.islnk():
        return "a link, which is not followed; put the file itself into the shard", "link"
    if info.issparse():
        return "a sparse file, which does not lie in one piece; pack it without --sparse", "sparse"
    if info.isdir():
        return None
    if not info.isreg():
        return "a device, a pipe or of a kind unknown; leave it out", "not a file"
    if info.name in seen:
        return "its name is there before; the first of them is used", "same name"
    return None
