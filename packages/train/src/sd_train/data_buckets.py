"""The size in which each picture of a data set is learnt."""

from collections.abc import Iterable, Sequence

from sd_train.buckets import Size, best_bucket, default_buckets
from sd_train.config import DataConfig
from sd_train.errors import TrainError


def bucket_of(width: int, height: int, config: DataConfig) -> Size:
    """Return the size (width, height) that a picture is cut to: a bucket, or the square."""
    if not config.buckets:
        return config.size, config.size
    return best_bucket(width, height, default_buckets(config.size, config.bucket_step))


def by_size(places: Iterable[int], sizes: Sequence[Size]) -> dict[Size, list[int]]:
    """Sort places in a data set, picture i of which is of `sizes[i]`, by size."""
    found: dict[Size, list[int]] = {}
    for place in places:
        found.setdefault(sizes[place], []).append(place)
    return dict(sorted(found.items()))


def check_buckets(sizes: Iterable[Size], config: DataConfig, multiple: int) -> None:
    """Raise TrainError unless all sides are multiples of what the networks shrink pictures by."""
    for width, height in sorted(set(sizes)) if config.buckets else ():
        if width % multiple or height % multiple:
            raise TrainError(
                f"data.buckets has {width} x {height}, but these networks need sides that are "
                f"multiples of {multiple}; set data.bucket_step = {multiple}"
            )


def name_of(size: Size) -> str:
    """Name a size, as caches do: "768x320"."""
    return f"{size[0]}x{size[1]}"
