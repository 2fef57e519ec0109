"""What is measured, as every process of a run is told it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

TARGETS = ("step", "decode", "txt2img", "train", "load", "import")
RUNS = ("step", "decode", "txt2img", "train")
"""The targets that compute something; the others are starts."""

SIZES = ("tiny", "embedded", "sd15-shallow", "sd15")
METHODS = ("lora", "full", "dreambooth")
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
PROMPT, NEGATIVE, GUIDANCE = "a cat on a mat", "", 7.5
TIMESTEP = 481.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Say what an arm computes, and where.

    `folder` is the model's, which all arms open; `scratch` is emptied when the run is over, and
    holds what compilers keep, so that none profits from an earlier run. `width` and `height` are
    a picture's, in pixels; `batch` is the number of pictures, of which a guided step asks the
    network twice. `steps` and the prompt are txt2img's alone, `method` (a LoRA learns, or all
    weights do, with DreamBooth's prior beside them) and `ema` (whether an average of what learns is
    kept) train's. `own_dtype` is ours where it is not `dtype`, that of all. `threads` 0 is torch's
    own number, and `compile_mode` "" what the peer's documentation tells for the device.
    """

    target: str
    folder: str
    scratch: str = ""
    width: int
    height: int
    batch: int = 1
    steps: int = 20
    dtype: str = "fp32"
    own_dtype: str = ""
    device: str = "cpu"
    threads: int = 0
    compile_mode: str = ""
    method: str = "lora"
    ema: bool = False
    uncached: bool = False
    seed: int = 7

    @property
    def place(self) -> Path:
        return Path(self.folder)

    def of(self, arm: str) -> Self:
        """Return the case as an arm is told it, in its own type."""
        own = self.own_dtype if arm.startswith("ours") else ""
        return replace(self, dtype=own or self.dtype, own_dtype="")

    @property
    def on_cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def learns_all(self) -> bool:
        """Whether all weights of the UNet learn."""
        return self.method != "lora"

    @property
    def num_shown(self) -> int:
        """How many pictures a training step sees: DreamBooth's one of the class for each."""
        return self.batch * (2 if self.method == "dreambooth" else 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """Say how the arms take turns: rounds of A B B A.

    `warm_up` runs of each are not counted, beside the very first and the one that is checked. With
    `fresh` each takes its turns in a new process, and only one is loaded at a time.
    """

    rounds: int = 3
    warm_up: int = 1
    fresh: bool = False
