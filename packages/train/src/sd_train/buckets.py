"""Aspect-ratio buckets: the sizes in which pictures are learnt, and where they are cut."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sd_train.errors import TrainError

Size = tuple[int, int]  # width, height


def bucket_sizes(size: int, *, step: int, shortest: int, longest: int) -> tuple[Size, ...]:
    """Return the buckets (width, height) of about `size` x `size` pixels, never more, sorted.

    Sides are multiples of `step` from `shortest` to `longest`, both ways round. Raises TrainError
    unless 1 <= step <= shortest <= size <= longest.
    """
    if not 1 <= step <= shortest <= size <= longest:
        raise TrainError(
            f"buckets of step {step}, sides {shortest} to {longest} and size {size} do not fit; "
            "use 1 <= step <= shortest <= size <= longest"
        )
    sides = range(-(-shortest // step) * step, longest + 1, step)
    # A side is given; the other is the longest the area allows.
    found = {(side, min(longest, size * size // side) // step * step) for side in sides}
    found.add((size // step * step, size // step * step))
    both_ways = found | {(height, width) for width, height in found}
    return tuple(sorted(pair for pair in both_ways if min(pair) >= shortest))


def default_buckets(size: int, step: int = 0) -> tuple[Size, ...]:
    """Return the buckets usual for a size: sides from half to twice of it, in steps of 64.

    Below 512 the step is an eighth of the size, at least 8, unless one is given.
    """
    step = step or min(64, max(8, size // 64 * 8))
    size = max(size, step)
    return bucket_sizes(size, step=step, shortest=max(step, size // 2), longest=2 * size)


def best_bucket(width: int, height: int, buckets: Iterable[Size]) -> Size:
    """Return the bucket nearest in aspect ratio, by the ratio of the ratios.

    A picture on its side gets the bucket on its side. Among equals the largest is taken, then the
    narrowest; the order of `buckets` does not matter.
    """

    def badness(bucket: Size) -> tuple[float, int, Size]:
        one, other = width * bucket[1], height * bucket[0]
        return max(one, other) / min(one, other), -bucket[0] * bucket[1], bucket

    return min(buckets, key=badness)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """A window of `bucket` on a picture resized to cover it; sizes are (width, height).

    `original`, `left` and `top` are the conditions of SDXL (Podell et al., arXiv 2307.01952,
    section 2.2); the corner is counted on the resized picture.
    """

    original: Size
    resized: Size
    bucket: Size
    left: int
    top: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The window on the resized picture as left, top, right, bottom."""
        return self.left, self.top, self.left + self.bucket[0], self.top + self.bucket[1]

    def mirrored(self) -> "Placement":
        """Return the window that shows the same once the picture is mirrored left to right."""
        return replace(self, left=self.resized[0] - self.bucket[0] - self.left)


def place(
    width: int, height: int, bucket: Size, *, across: float = 0.5, down: float = 0.5
) -> Placement:
    """Resize a picture to cover a bucket and lay the window on what sticks out.

    `across` and `down`, 0 to 1, say where: 0.5 is the centre; drawn evenly, they give every corner
    the same chance.
    """
    # Integers: the same on every machine, and the covering side is met exactly.
    if width * bucket[1] >= height * bucket[0]:
        resized = (max(bucket[0], (2 * width * bucket[1] + height) // (2 * height)), bucket[1])
    else:
        resized = (bucket[0], max(bucket[1], (2 * height * bucket[0] + width) // (2 * width)))
    room = resized[0] - bucket[0], resized[1] - bucket[1]
    return Placement(
        original=(width, height),
        resized=resized,
        bucket=bucket,
        left=min(room[0], int(across * (room[0] + 1))),
        top=min(room[1], int(down * (room[1] + 1))),
    )
