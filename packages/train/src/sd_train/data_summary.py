"""A data set in a few lines, or as one document: what is used, what is not, sizes, captions."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from sd_pipeline.printable import printable
from sd_train.buckets import best_bucket, default_buckets
from sd_train.data_check import DataReport, UsedPicture
from sd_train.entries import Skipped

if TYPE_CHECKING:
    from sd_textenc import Tokenizer

_SIDES = (64, 128, 256, 512, 768, 1024, 1536, 2048)
_WORDS_SHOWN = 12
_BUCKETS_SHOWN = 8
_CAPTION_SHOWN = 160
_CLASSES_SHOWN = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionStatistics:
    """The captions of a data set; `num_words` are the fewest, the median and the most.

    `num_cut` counts the distinct captions with more tokens than the context has room for, None if
    they were not counted.
    """

    num_distinct: int
    num_words: tuple[int, float, int]
    frequent_words: list[tuple[str, int]]
    longest: str
    num_cut: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSummary:
    """A data set in numbers: files by reason, shorter sides by band, buckets, pictures by class."""

    num_used: int
    num_examples: int
    dropped: dict[str, int]
    others: dict[str, int]
    remarks: dict[str, int]
    shorter_sides: dict[str, int]
    buckets: dict[str, int]
    captions: CaptionStatistics | None
    classes: dict[str, int]


def summarise(report: DataReport, tokenizer: "Tokenizer | None" = None) -> DataSummary:
    """Count what a report lists; captions of which a tokenizer would cut the end only with one."""
    remarks = [remark.kind for picture in report.used for remark in picture.remarks]
    captions = [picture.entry.caption for picture in report.used]
    return DataSummary(
        num_used=len(report.used),
        num_examples=sum(picture.entry.repeats for picture in report.used),
        dropped=_counted(item.kind for item in report.skipped),
        others=_counted(item.kind for item in report.others),
        remarks=_counted(remarks),
        shorter_sides=_shorter_sides(report.used),
        buckets=_buckets(report),
        captions=_caption_statistics(captions, tokenizer) if captions else None,
        classes=_by_class(report),
    )


def summary_lines(summary: DataSummary, report: DataReport) -> list[str]:
    """Say a summary in lines for people: the same for `data check` and before training."""
    lines = [
        f"pictures: {summary.num_used} used, {len(report.skipped)} dropped; "
        f"{len(report.others)} other files"
    ]
    if summary.num_examples != summary.num_used:
        lines.append(f"with repeats: {summary.num_examples} pictures")
    reasons = {"dropped": summary.dropped, "used, but": summary.remarks}
    for name, counts in reasons.items():
        if counts:
            lines.append(
                f"{name}: {', '.join(f'{count} {kind}' for kind, count in counts.items())}"
            )
    if summary.num_used:
        sides = ", ".join(f"{band} ({count})" for band, count in summary.shorter_sides.items())
        shown = list(summary.buckets.items())[:_BUCKETS_SHOWN]
        sizes = ", ".join(f"{bucket} ({count})" for bucket, count in shown)
        more = ", ..." * (len(summary.buckets) > len(shown))
        lines += [
            f"shorter sides: {sides}",
            f"buckets of {report.size} x {report.size}: {sizes}{more}",
        ]
    if summary.classes:
        lines.append(_class_line(summary.classes))
    if summary.captions is not None:
        lines += _caption_lines(summary.captions)
    return lines + [printable(note) for note in report.notes]


def dropped_lines(report: DataReport, limit: int | None = None) -> list[str]:
    """Name what was left out and why, a line each, up to `limit` of them."""
    lines = [_file_line("dropped", item) for item in report.skipped[:limit]]
    hidden = len(report.skipped) - len(lines)
    return lines + [f"... and {hidden} more dropped; sdcli data check names them"] * bool(hidden)


def file_lines(report: DataReport) -> Iterator[str]:
    """Name every file: used, with what is odd about it; dropped and why; no picture."""
    for picture in report.used:
        remarks = "; ".join(remark.text for remark in picture.remarks)
        yield printable(f"used {picture.entry.path}{': ' * bool(remarks)}{remarks}")
    yield from dropped_lines(report)
    yield from (_file_line("other", item) for item in report.others)


def document(report: DataReport, summary: DataSummary) -> dict[str, Any]:
    """Return a report and its summary as plain values, for JSON."""
    return {
        "folder": printable(report.folder),
        "size": report.size,
        "summary": asdict(summary),
        "used": [_used_row(picture, labelled=bool(report.classes)) for picture in report.used],
        "dropped": [_skipped_row(item) for item in report.skipped],
        "others": [_skipped_row(item) for item in report.others],
        "notes": [printable(note) for note in report.notes],
    }


def _used_row(picture: UsedPicture, *, labelled: bool) -> dict[str, Any]:
    label = {"label": picture.entry.label} if labelled else {}
    return {
        "file": printable(picture.entry.path),
        "width": picture.width,
        "height": picture.height,
        "caption": picture.entry.caption,
        "caption_from": picture.entry.caption_from,
        **label,
        "repeats": picture.entry.repeats,
        "mask": None if picture.entry.mask is None else printable(picture.entry.mask),
        "remarks": [{"kind": r.kind, "text": printable(r.text)} for r in picture.remarks],
    }


def _skipped_row(item: Skipped) -> dict[str, str]:
    return {"file": printable(item.what), "kind": item.kind, "reason": printable(item.reason)}


def _file_line(verb: str, item: Skipped) -> str:
    return printable(f"{verb} {item.what}: {item.reason}")


def _counted(kinds: Iterable[str]) -> dict[str, int]:
    return dict(Counter(kinds).most_common())


def _shorter_sides(used: list[UsedPicture]) -> dict[str, int]:
    bands = Counter(
        sum(min(picture.width, picture.height) >= side for side in _SIDES) for picture in used
    )
    names = [
        f"below {_SIDES[0]}",
        *(f"{low} to {high - 1}" for low, high in pairwise(_SIDES)),
        f"{_SIDES[-1]} and up",
    ]
    return {names[band]: bands[band] for band in sorted(bands)}


def _buckets(report: DataReport) -> dict[str, int]:
    buckets = default_buckets(report.size, report.bucket_step)
    sizes = Counter((picture.width, picture.height) for picture in report.used)
    counts: Counter[str] = Counter()
    for (width, height), count in sizes.items():
        across, down = best_bucket(width, height, buckets)
        counts[f"{across} x {down}"] += count
    return dict(counts.most_common())


def _by_class(report: DataReport) -> dict[str, int]:
    counts = Counter(picture.entry.label for picture in report.used)
    return {name: counts[name] for name in report.classes}


def _class_line(counts: dict[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:_CLASSES_SHOWN]]
    hidden = len(counts) - len(shown)
    fewest = min(counts, key=lambda name: counts[name])
    more = f", ... and {hidden} more, the fewest {fewest} ({counts[fewest]})" if hidden else ""
    return printable(f"classes: {len(counts)}: {', '.join(shown)}{more}")


def _caption_statistics(captions: list[str], tokenizer: "Tokenizer | None") -> CaptionStatistics:
    words: Counter[str] = Counter()
    lengths = []
    for caption in captions:
        found = re.findall(r"[\w'’-]+", caption.lower())
        words.update(found)
        lengths.append(len(found))
    distinct = set(captions)
    return CaptionStatistics(
        num_distinct=len(distinct),
        num_words=(min(lengths), median(lengths), max(lengths)),
        frequent_words=words.most_common(_WORDS_SHOWN),
        longest=max(distinct, key=lambda caption: (len(caption), caption)),
        num_cut=None if tokenizer is None else _num_cut(distinct, tokenizer),
    )


def _num_cut(captions: set[str], tokenizer: "Tokenizer") -> int:
    return sum(bool(tokenizer.check(caption).dropped) for caption in captions)


def _caption_lines(captions: CaptionStatistics) -> list[str]:
    fewest, middle, most = captions.num_words
    lines = [
        f"captions: {captions.num_distinct} distinct, of {fewest} to {most} words, "
        f"median {middle:g}"
    ]
    if captions.num_cut:
        lines.append(f"too long: {captions.num_cut} captions have more tokens than the context")
    if captions.frequent_words:
        words = ", ".join(f"{word} {count}" for word, count in captions.frequent_words)
        lines.append(f"words: {printable(words)}")
    shown = captions.longest[:_CAPTION_SHOWN]
    ellipsis = " ..." * (len(captions.longest) > len(shown))
    return [*lines, f"longest: {printable(shown)}{ellipsis}"]
