"""How fast a run is, and how long it still takes."""

import math

from sd_train.config import TrainerConfig
from sd_train.reporter import Reporter, StepInfo


class Pace:
    """Keeps the time of the steps, smoothed, and tells the reporter of each step."""

    def __init__(self, config: TrainerConfig, reporter: Reporter) -> None:
        self.config = config
        self.reporter = reporter
        self._seconds_per_step = 0.0
        self._seconds_of_first = 0.0

    @property
    def images_per_second(self) -> float:
        """How many examples are learnt from in a second; after the first step."""
        return self.config.batch_size * self.config.accumulate / self._seconds_per_step

    def tell(self, step: int, loss: float, learning_rate: float, seconds: float) -> None:
        """Take in what the step took, after which `step` are done, and tell of it."""
        if self.config.compile:
            self._tell_of_compiling(seconds)
        smooth = 0.95 * self._seconds_per_step + 0.05 * seconds
        self._seconds_per_step = smooth if self._seconds_per_step else seconds
        self.reporter.step(
            StepInfo(
                step=step,
                num_steps=self.config.steps,
                loss=loss,
                learning_rate=learning_rate,
                images_per_second=self.images_per_second,
                seconds_left=(self.config.steps - step) * self._seconds_per_step,
            )
        )

    def _tell_of_compiling(self, seconds: float) -> None:
        """Say what the first step took more than the second, which compiles nothing."""
        if not self._seconds_of_first:
            self._seconds_of_first = seconds
            self._seconds_per_step = 0.0
        elif math.isfinite(self._seconds_of_first):
            spent = max(0.0, self._seconds_of_first - seconds)
            self.reporter.message(f"compiling took {spent:.1f} s of the first step")
            self._seconds_of_first, self._seconds_per_step = math.inf, 0.0
