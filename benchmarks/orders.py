"""The parent's side of an arm: a process that waits, is told what to do, and answers."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.case import Case

_ROOT = Path(__file__).parents[1]
WORKER = (sys.executable, "-m", "benchmarks.worker")


class LeftOut(Exception):  # noqa: N818  (it is no fault)
    """Say in one line why an arm has no part in a run."""


class ArmFailed(Exception):  # noqa: N818  (the name is what it is)
    """Say in one line what an arm died of."""


class ArmProcess:
    """An arm in a process of its own, from its beginning to `close`."""

    def __init__(self, arm: str, case: Case) -> None:
        """Start it and let it load; `begun` is what it tells of that.

        Raises `LeftOut` when the arm cannot run here, `ArmFailed` when it breaks.
        """
        self.arm = arm
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        self._process = subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=_ROOT,
            env=_environment(case),
        )
        try:
            self.begun = self.ask("begin", arm=arm, case=asdict(case))
        except (LeftOut, ArmFailed):
            self.close()
            raise

    def ask(self, do: str, **given: Any) -> dict[str, Any]:
        """Give an order and wait for the answer; raises as the class."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write((json.dumps({"do": do, **given}) + "\n").encode())
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise ArmFailed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "cannot" in answer:
            raise LeftOut(answer["cannot"])
        if "failed" in answer:
            raise ArmFailed(answer["failed"])
        return answer

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        if code < 0:
            return (
                f"its process was ended by signal {-code}, mostly for want of memory: try --fresh"
            )
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"its process ended with {code}: {lines[-1] if lines else 'no message'}"


def _environment(case: Case) -> Mapping[str, str]:
    environment = dict(os.environ)
    # Everything is in the folder: nobody is to ask a server for what it lacks.
    environment["HF_HUB_OFFLINE"] = "1"
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(Path(case.scratch) / "inductor")
    environment["TRITON_CACHE_DIR"] = str(Path(case.scratch) / "triton")
    if case.threads:
        environment["OMP_NUM_THREADS"] = str(case.threads)
    return environment
