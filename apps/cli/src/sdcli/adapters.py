"""The adapters that a command line names, by file or in a prompt."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdcli.errors import CommandError
from sdcli.option_groups import PromptOptions

if TYPE_CHECKING:
    from sd_pipeline import AdapterUse
    from sd_pipeline.adapter_use import AdapterKind

_SUFFIXES = (".safetensors", ".pt", ".bin", ".ckpt")
_EMBEDDINGS = "embeddings"
_STRENGTHS = re.compile(r"(?P<file>.+?)(?P<strengths>(?::[-+]?(?:\d+\.?\d*|\.\d+))+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedAdapters:
    """Find adapters: those of the options, and in a folder those that prompts name."""

    given: "tuple[AdapterUse, ...]"
    folder: Path

    @classmethod
    def of(cls, prompts: PromptOptions) -> "NamedAdapters":
        """Read the options; raises `CommandError` for one of the wrong form."""
        given = [_use("lora", text, "--lora", most=2) for text in prompts.lora or ()]
        given += [
            _use("hypernetwork", text, "--hypernetwork", most=1)
            for text in prompts.hypernetwork or ()
        ]
        given += [_embedding(path) for path in prompts.embedding or ()]
        return cls(given=tuple(given), folder=prompts.adapters)

    def applied(
        self, before: "Sequence[AdapterUse]", prompt: str, negative_prompt: str
    ) -> dict[str, Any]:
        """Return the prompts without their tags and the adapters, as fields of a `Txt2Img`.

        `before` are those that the request has already. An embedding of the folder counts where a
        prompt has its name. Raises `CommandError` where the folder has no such file or several, and
        `TextEncoderError` for a tag of the wrong form.
        """
        from sd_pipeline import AdapterUse
        from sd_textenc.prompts import parse_networks

        if parse_networks(negative_prompt)[1]:
            raise CommandError(
                "the negative prompt names an adapter, which counts for both prompts; name it in "
                "the prompt"
            )
        text, tags = parse_networks(prompt)
        uses = [*before, *self.given]
        for tag in tags:
            strengths: dict[str, Any] = {"strength": tag.strength}
            if tag.kind == "lora":
                strengths |= {"text_strength": tag.text_strength, "blocks": tag.blocks}
            file = str(self._find(tag.kind, tag.name))
            uses.append(AdapterUse(kind=tag.kind, file=file, **strengths))
        known = {use.name for use in uses if use.kind == "embedding"}
        uses += [
            _embedding(path)
            for path in self._embeddings()
            if path.stem not in known and _holds(f"{text}\n{negative_prompt}", path.stem)
        ]
        return {"prompt": text, "negative_prompt": negative_prompt, "adapters": tuple(uses)}

    def _find(self, kind: str, name: str) -> Path:
        found = _called(self.folder, name)
        if len(found) != 1:
            there = ", ".join(map(str, found)) or "no such file"
            raise CommandError(
                f"the prompt names the {kind} {name!r}, and in {self.folder} there is {there}; "
                "put one file of that name there, or name another folder with --adapters"
            )
        return found[0]

    def _embeddings(self) -> list[Path]:
        paths = sorted((self.folder / _EMBEDDINGS).rglob("*"))
        return [path for path in paths if path.suffix in _SUFFIXES]


def found_again(uses: "Sequence[AdapterUse]", folder: Path) -> "tuple[AdapterUse, ...]":
    """Return a record's adapters: where one's file is gone, that of its name in a folder."""
    return tuple(_found_again(use, folder) for use in uses)


def _found_again(use: "AdapterUse", folder: Path) -> "AdapterUse":
    if not Path(use.file).is_file():
        for path in _called(folder, use.name):
            return replace(use, file=str(path))
    return use  # drawing says that it is not there


def _called(folder: Path, name: str) -> list[Path]:
    """List the adapters of a name, which may begin with folders, in a folder or below."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in _SUFFIXES
        and name in (path.stem, path.relative_to(folder).with_suffix("").as_posix())
    )


def _use(kind: "AdapterKind", text: str, option: str, *, most: int) -> "AdapterUse":
    """Read FILE, FILE:STRENGTH or FILE:TEXT:UNET."""
    from sd_pipeline import AdapterUse

    match = _STRENGTHS.fullmatch(text)
    numbers = [
        float(one)
        for one in (match["strengths"] if match and match["strengths"] else "").split(":")
        if one
    ]
    if match is None or len(numbers) > most:
        raise CommandError(
            f"{option} is {text!r}; it must be a file and at most {most} numbers: FILE:0.8"
        )
    return AdapterUse(
        kind=kind,
        file=match["file"],
        strength=numbers[-1] if numbers else 1.0,
        text_strength=numbers[0] if len(numbers) == 2 else None,
    )


def _embedding(path: Path) -> "AdapterUse":
    from sd_pipeline import AdapterUse

    return AdapterUse(kind="embedding", file=str(path))


def _holds(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None
