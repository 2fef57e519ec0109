"""An arm in a process of its own: loads once, then obeys orders, a line of JSON each.

`begin` loads, `go` computes once and answers seconds, `check` computes once, untimed, measures
memory and writes the output to a file. The end of stdin ends it.
"""

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from benchmarks.arms import CannotRun, Run, make_arm
from benchmarks.case import RUNS, Case

Answer = dict[str, Any]


class Worker:
    """One arm and what it was told to compute."""

    def begin(self, arm: str, case: dict[str, Any]) -> Answer:
        """Import and load; answer how long each took, and how much it is."""
        from benchmarks.inputs import make_inputs
        from benchmarks.resident import Meter, forget_peak

        self._case = Case(**case)
        if self._case.threads:
            torch.set_num_threads(self._case.threads)
        started = time.perf_counter()
        made = make_arm(arm, self._case.target)
        made.imports(self._case)
        imported = time.perf_counter()
        forgotten = forget_peak()
        self._meter = Meter(on_cuda=self._case.on_cuda)
        before_load = time.perf_counter()
        networks = made.load(self._case)
        self._weights = _touch(networks)
        self._wait()
        loaded = time.perf_counter()
        peak = self._meter.peak_so_far() if forgotten or self._case.on_cuda else None
        if self._case.target in RUNS:
            with self._mode():
                self._run = self._ready(made.prepare(self._case, make_inputs(self._case)))
        return {
            "import_seconds": imported - started,
            "load_seconds": loaded - before_load,
            "load_peak": peak,
            "weights": self._weights,
            "threads": torch.get_num_threads(),
        }

    def go(self) -> Answer:
        started = time.perf_counter()
        self._run()
        return {"seconds": time.perf_counter() - started}

    def check(self, path: str) -> Answer:
        from safetensors.torch import save_file

        output, memory = self._meter.peak_of(self._run, self._weights)
        save_file({"output": output.detach().float().cpu().contiguous()}, path)
        return {"memory": memory}

    def _ready(self, run: Run) -> Run:
        """Return a run that is over when it returns, and keeps no graph."""

        def whole() -> Tensor:
            with self._mode():
                output = run()
            self._wait()
            return output

        return whole

    def _mode(self) -> AbstractContextManager[object]:
        """Open the context of what is timed; what learns wants gradients."""
        return nullcontext() if self._case.target == "train" else torch.inference_mode()

    def _wait(self) -> None:
        if self._case.on_cuda:
            torch.cuda.synchronize()


def _touch(networks: Sequence[nn.Module]) -> int:
    """Read every page of the weights, for a mapped file costs nothing until it is; return bytes."""
    total = 0
    for network in networks:
        for tensor in network.state_dict().values():
            total += tensor.numel() * tensor.element_size()
            if tensor.layout == torch.strided and tensor.device.type == "cpu":
                float(tensor.reshape(-1)[::1024].float().sum())
    return total


def _answers() -> TextIO:
    """Take stdout for the answers; what libraries print there goes to stderr from now on."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def _obey(does: Callable[..., Answer], order: Answer) -> Answer:
    try:
        return does(**order)
    except CannotRun as reason:
        return {"cannot": str(reason)}
    except Exception as error:  # whatever a library raises is the parent's to tell
        traceback.print_exc()
        with suppress(Exception):
            sys.stderr.flush()
        first = (str(error).strip() or "no message").splitlines()[0]
        return {"failed": f"{type(error).__name__}: {without_paths(first)[:300]}"}


def without_paths(text: str) -> str:
    """Replace paths in a text, which are nobody's business in a report."""
    return re.sub(r"(?<![\w.])/[^\s'\":,;)]+", "(a path)", text)


def main() -> None:
    answers, worker = _answers(), Worker()
    does: dict[str, Callable[..., Answer]] = {
        "begin": worker.begin,
        "go": worker.go,
        "check": worker.check,
    }
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(_obey(does[order.pop("do")], order)), file=answers, flush=True)


if __name__ == "__main__":
    main()
