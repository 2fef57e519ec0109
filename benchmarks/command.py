"""The command line: ours and its peers on the same weights, in the same run, taking turns."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.case import DTYPES, METHODS, RUNS, SIZES, Case, Turns

_HELP = {
    "step": "one guided step of the UNet, which is asked for twice the batch",
    "decode": "latents to pixels by the autoencoder",
    "txt2img": "the whole way: text, steps, pixels",
    "train": "one training step of the UNet; latents and text states are ready, or see --uncached",
    "load": "a model's folder to networks in memory, in fresh processes",
    "import": "processes that import one thing, sdcli --help, and a whole picture of one step",
}
_SIDE = {"tiny": 64, "embedded": 128, "sd15-shallow": 512, "sd15": 512}
_ARMS = (
    "ours",
    "diffusers",
    "diffusers-compiled",
    "ours-compiled",
    "ours-graphs",
    "openvino",
    "ours-openvino",
)
_EPILOG = """\
The first arm is what ratios are taken to. Exit code 1: ours did not compute what the peer did, or
broke. docs/benchmarks.md tells what is measured, and how to read it.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser: a target, and what is the same for all."""
    common = argparse.ArgumentParser(add_help=False)
    model = common.add_argument_group("the model")
    model.add_argument("--size", choices=SIZES, default="embedded", help="default: embedded")
    model.add_argument(
        "--folder", type=Path, help="where models of random weights are kept; else made and deleted"
    )
    work = common.add_argument_group("the work")
    work.add_argument("--width", type=int, help="in pixels; default: 64, 128, 512 by size")
    work.add_argument("--height", type=int, help="likewise")
    work.add_argument("--batch", type=_positive, default=1, help="pictures; default: 1")
    work.add_argument("--steps", type=_positive, default=20, help="of txt2img; default: 20")
    work.add_argument(
        "--method",
        choices=METHODS,
        default="lora",
        help="what train trains: a LoRA, all weights, or all with as many pictures of the class "
        "as --batch says; default: lora",
    )
    work.add_argument("--ema", action="store_true", help="let train keep averaged weights")
    work.add_argument(
        "--uncached",
        action="store_true",
        help="let the peer encode pictures and captions at every step of train, as its scripts do "
        "that keep none; ours has them cached either way",
    )
    work.add_argument("--dtype", choices=tuple(DTYPES), default="fp32", help="default: fp32")
    work.add_argument(
        "--defaults",
        action="store_true",
        help="let ours compute in the type that it takes by itself, and the peers in theirs, fp32",
    )
    work.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...; default: cpu")
    work.add_argument("--threads", type=_positive, help="of every arm; default: torch's own number")
    way = common.add_argument_group("the measuring")
    way.add_argument(
        "--arms", type=_arms, default=_ARMS[:2], help=f"of {','.join(_ARMS)}; default: first two"
    )
    way.add_argument("--rounds", type=_positive, default=3, help="of A B B A; default: 3")
    way.add_argument("--warm-up", type=int, default=1, help="runs before them; default: 1")
    way.add_argument("--fresh", action="store_true", help="a new process for every turn of an arm")
    way.add_argument("--compile-mode", default="", help="torch.compile's; default: as documented")
    way.add_argument("--json", type=Path, help="write the report there")
    whole = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0], epilog=_EPILOG
    )
    targets = whole.add_subparsers(dest="target", required=True, metavar="TARGET")
    for name, text in _HELP.items():
        targets.add_parser(name, help=text, description=text, parents=[common], epilog=_EPILOG)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for, show it, and return the exit code."""
    whole = parser()
    options = whole.parse_args(arguments)
    side = _SIDE[options.size]
    options.width, options.height = options.width or side, options.height or side
    if min(options.width, options.height) < 8 or options.width % 8 or options.height % 8:
        whole.error(f"{options.width} x {options.height}: sides must be multiples of 8, from 8 on")
    if options.warm_up < 0:
        whole.error(f"--warm-up {options.warm_up}: it must be 0 or more")
    if options.defaults and (options.dtype != "fp32" or options.target not in RUNS):
        whole.error(f"--defaults: it is for {', '.join(RUNS)}, and without --dtype")
    _check_device(whole, options.device)

    from rich.console import Console  # the help needs none of these

    from benchmarks.measure import TooLittleMemory
    from benchmarks.report import show
    from sd_checkpoint import save_json

    try:
        with tempfile.TemporaryDirectory() as scratch:
            report, good = _measured(options, _case(options, Path(scratch)))
    except TooLittleMemory as reason:
        whole.exit(1, f"{reason}\n")
    show(report, Console(width=None if Console().is_terminal else 160))
    if options.json is not None:
        save_json(options.json, report)
    return 0 if good else 1


def _measured(options: argparse.Namespace, case: Case) -> tuple[dict[str, Any], bool]:
    """Return the report, and whether ours ran and was right."""
    from benchmarks.report import head, starts_report
    from benchmarks.starts import measure_imports, measure_loads

    turns = Turns(rounds=options.rounds, warm_up=options.warm_up, fresh=options.fresh)
    asked = head(case, options.size, turns)
    if case.target in RUNS:
        found, good = _run(case, options, turns)
        return {**asked, **found}, good
    if case.target == "import":
        starts = measure_imports(options.arms, options.rounds)
    else:
        starts = measure_loads(case, options.arms, options.rounds)
    return {**asked, **starts_report(starts)}, "ours" not in starts.failed


def _run(case: Case, options: argparse.Namespace, turns: Turns) -> tuple[dict[str, Any], bool]:
    from benchmarks.agreement import agreement
    from benchmarks.calibration import calibrate
    from benchmarks.flops import count_flops
    from benchmarks.measure import measure
    from benchmarks.report import run_report

    seconds = 0.05 if options.size == "tiny" else 1.0
    before = calibrate(case, seconds=seconds)
    measured = measure(case, options.arms, turns)
    calibration = before.merged(calibrate(case, seconds=seconds))
    agreed = agreement(*measured.compared(case))
    report = run_report(measured, agreed, calibration, count_flops(case))
    broken = "ours" in measured.failed or not measured.arms
    return report, agreed.passed is not False and not broken


def _case(options: argparse.Namespace, scratch: Path) -> Case:
    """Return the case of a command line; its model is made where there is none."""
    case = Case(
        target=options.target,
        folder="",
        scratch=str(scratch),
        width=options.width,
        height=options.height,
        batch=options.batch,
        steps=options.steps,
        dtype=options.dtype,
        device=options.device,
        threads=options.threads or 0,
        compile_mode=options.compile_mode,
        method=options.method,
        ema=options.ema,
        uncached=options.uncached,
    )
    if options.target == "import":
        return case
    from benchmarks.models import folder_of

    folder = (options.folder or scratch).resolve()
    case = replace(case, folder=str(folder_of(options.size, folder)))
    return replace(case, own_dtype=_own_dtype(case)) if options.defaults else case


def _own_dtype(case: Case) -> str:
    """Return the type that ours takes by itself for a case's model."""
    import torch

    from sd_pipeline import name_of, open_model, resolve_dtype

    network = open_model(case.place).unet.config
    return name_of(resolve_dtype("auto", torch.device(case.device), network))


def _check_device(whole: argparse.ArgumentParser, device: str) -> None:
    if device == "cpu":
        return
    if not device.startswith("cuda"):
        whole.error(f"--device {device}: cpu and cuda are measured here")
    import torch

    if not torch.cuda.is_available():
        whole.error(f"--device {device}: torch finds no CUDA here; leave it out for the CPU")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few; give 1 or more")
    return number


def _arms(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in _ARMS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown) or 'nothing'} is no arm; choose of {','.join(_ARMS)}"
        )
    return names
