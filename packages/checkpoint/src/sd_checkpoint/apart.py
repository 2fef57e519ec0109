"""Reading the structure of a pickle in a child process that can do no harm."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from sd_checkpoint.errors import CheckpointError
from sd_checkpoint.mapped import MappedFile

__all__ = ["index_apart"]

_MAX_ANSWER = 128 * 2**20  # bytes
_MAX_SECONDS = 300  # of waiting; the child's own limit is on processor time
_PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")  # to find the interpreter
_SCRIPT = (
    "import sys; sys.path.append(sys.argv[1]); from restricted.main import main; main()"  # no torch
)


def index_apart(file: MappedFile) -> dict[str, Any]:
    """Return the index of a file of `torch.save`, as `restricted.index.make_index` describes it.

    It is made by a child process that has the open file and nothing else: on Linux it cannot open,
    write, connect or start anything, and everywhere it runs nothing that the file holds. What it
    answers is not to be trusted any more than the file.
    Raises `CheckpointError` when the file is refused, or the child ends without an answer.
    """
    answer = _parsed(file.path, _ask_child(file))
    refused = answer.get("refused")
    if refused is not None:
        raise CheckpointError(f"{file.path} cannot be read: {refused}")
    index = answer.get("index")
    if not isinstance(index, dict):
        raise _no_answer(file.path, "its answer is none")
    return index


def _ask_child(file: MappedFile) -> bytes:
    command = [sys.executable, "-I", "-S", "-B", "-c", _SCRIPT, str(Path(__file__).parent)]
    try:
        child = subprocess.Popen(
            command,
            stdin=file.descriptor,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot start the process that is to read {file.path}: {error}; take safetensors"
        ) from error
    with child:
        assert child.stdout is not None
        alarm = threading.Timer(_MAX_SECONDS, child.kill)
        alarm.start()
        try:
            data = child.stdout.read(_MAX_ANSWER + 1)
        finally:
            alarm.cancel()
            child.kill()
    if len(data) > _MAX_ANSWER:
        raise _no_answer(file.path, "its answer is too long")
    return data


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        raise _no_answer(path, "it needs too much memory or time, or harms its reader") from None
    if not isinstance(answer, dict):
        raise _no_answer(path, "its answer is none")
    return answer


def _no_answer(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read: the process that reads it apart gave no answer ({why}); "
        "take the file as safetensors"
    )
