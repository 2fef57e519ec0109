"""Models on the Hugging Face Hub and in its cache on this machine."""

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from sd_pipeline.errors import PipelineError

PART_FOLDERS = (
    "unet",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "scheduler",
)
"""The subfolders of a model that a picture needs; safety checkers and the like are left alone."""

_NAME = re.compile(
    r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(?P<file>(?:/[\w][\w .+()-]*)+)?(?:@(?P<revision>[\w./-]+))?"
)
# diffusion_pytorch_model.fp16-00001-of-00002.safetensors, model.safetensors.index.fp16.json, ...
_WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(?P<variant>[\w]+?))?(?:-\d+-of-\d+)?\.(?P<kind>safetensors|bin)"
    r"(?P<index>\.index(?:\.(?P<late>\w+))?\.json)?"
)
_TEXTS = (".json", ".txt", ".model")


@dataclass(frozen=True, kw_only=True, slots=True)
class HubName:
    """Name a repository, or one file of it, at a revision: `org/name[/file][@revision]`."""

    repo: str
    file: str | None = None
    revision: str = "main"

    @staticmethod
    def parse(name: str) -> "HubName | None":
        """Read a name; None when it cannot be one of the Hub's."""
        found = _NAME.fullmatch(name)
        if found is None or ".." in name:
            return None
        return HubName(
            repo=found["repo"],
            file=found["file"].removeprefix("/") if found["file"] else None,
            revision=found["revision"] or "main",
        )

    def __str__(self) -> str:
        """Return the name as `parse` reads it."""
        file = f"/{self.file}" if self.file else ""
        revision = f"@{self.revision}" if self.revision != "main" else ""
        return f"{self.repo}{file}{revision}"


def cached(name: HubName) -> Path | None:
    """Return the folder or file of a model in the cache, opening no socket; None if not there.

    The cache is where `HF_HUB_CACHE` or `HF_HOME` says. A model whose download was cut off is
    there in part.
    """
    snapshot = _snapshot(name)
    if snapshot is None:
        return None
    if name.file is not None:
        path = snapshot / name.file
        return path if path.is_file() else None
    return _model_in(snapshot)


def cached_models() -> Iterator[tuple[HubName, Path]]:
    """Yield the models in the cache with their names, opening no socket; the rest is left out."""
    from huggingface_hub import constants

    for repo in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        _, owner, title = repo.name.split("--", 2)
        name = HubName(repo=f"{owner}/{title}")
        path = cached(name)
        if path is not None:
            yield name, path


def pull(name: HubName, *, variant: str | None = None) -> Path:
    """Download what a picture needs of a repository and return where it lies in the cache.

    A connection that breaks is taken up where it stopped; after a failure, files that have arrived
    are not fetched again. Bars are drawn on stderr. `HF_TOKEN` opens private repositories,
    `HF_ENDPOINT` names another Hub.
    Raises `PipelineError` when the repository or the network is not there or refuses.
    """
    from huggingface_hub import HfApi, snapshot_download

    with _explained(name):
        if name.file is not None:
            wanted = [name.file]
        else:
            files = HfApi().list_repo_files(name.repo, revision=name.revision)
            wanted = wanted_files(files, variant, what=str(name))
        folder = snapshot_download(name.repo, revision=name.revision, allow_patterns=wanted)
    found = Path(folder) / name.file if name.file else _model_in(Path(folder))
    if found is None or not found.exists():
        raise PipelineError(f"{name} has no model in it; name another repository")
    return found


def wanted_files(files: Collection[str], variant: str | None, *, what: str) -> list[str]:
    """Choose from a repository's files those that a picture needs.

    Of each part one set of weights: the variant's where it is asked for and there, else the plain
    one, else the only variant there is; safetensors before .bin. A repository without
    `model_index.json` is one of single files, and must hold exactly one.
    Raises `PipelineError` when there is no such model or variant.
    """
    if "model_index.json" not in files:
        return [_only_single_file(files, what)]
    wanted = [name for name in ("model_index.json", "README.md") if name in files]
    folders = {
        part: [name for name in files if PurePosixPath(name).parent.as_posix() == part]
        for part in PART_FOLDERS
    }
    having = [
        part
        for part, inside in folders.items()
        if variant and any(its == variant for _, its in _sets(inside))
    ]
    for part, inside in folders.items():
        wanted += [n for n in inside if n.endswith(_TEXTS) and not _weights_of(n)]
        own = variant if part in having or not having else None
        wanted += _one_set(inside, own, what=f"{what}, {part}")
    return sorted(wanted)


def _sets(files: Iterable[str]) -> dict[tuple[str, str | None], list[str]]:
    """Sort files of weights by (kind, variant)."""
    sets: dict[tuple[str, str | None], list[str]] = {}
    for name in files:
        found = _weights_of(name)
        if found:
            key = (found["kind"], found["variant"] or found["late"])
            sets.setdefault(key, []).append(name)
    return sets


def _one_set(files: Iterable[str], variant: str | None, *, what: str) -> list[str]:
    """Choose one set of a part's weights: shards and index, or one file."""
    sets = _sets(files)
    if not sets:
        return []
    for kind in ("safetensors", "bin"):
        variants = {its for its_kind, its in sets if its_kind == kind}
        if variant in variants:
            return sets[kind, variant]
    if variant is None:
        for kind in ("safetensors", "bin"):
            variants = {its for its_kind, its in sets if its_kind == kind}
            if len(variants) == 1:
                return sets[kind, variants.pop()]
    there = ", ".join(sorted({its or "the plain one" for _, its in sets}))
    asked = f"no variant {variant!r}" if variant else "no plain weights"
    raise PipelineError(f"{what} has {asked}; there is {there}: name one with --variant")


def _weights_of(name: str) -> re.Match[str] | None:
    return _WEIGHTS.fullmatch(PurePosixPath(name).name)


def _only_single_file(files: Iterable[str], what: str) -> str:
    for suffixes in ((".safetensors",), (".ckpt",)):
        single = sorted(name for name in files if name.endswith(suffixes) and "/" not in name)
        if len(single) == 1:
            return single[0]
        if single:
            raise PipelineError(
                f"{what} holds {len(single)} models; name one, such as {what}/{single[0]}"
            )
    raise PipelineError(f"{what} holds no model: neither model_index.json nor one .safetensors")


def _snapshot(name: HubName) -> Path | None:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repo = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name.repo, repo_type="model")
    ref = repo / "refs" / name.revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else name.revision
    snapshot = repo / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def _model_in(snapshot: Path) -> Path | None:
    if (snapshot / "model_index.json").is_file():
        return snapshot
    files = [path.name for path in snapshot.iterdir() if path.is_file()]
    try:
        return snapshot / _only_single_file(files, snapshot.name)
    except PipelineError:
        return None


@contextmanager
def _explained(name: HubName) -> Iterator[None]:
    """Turn the Hub's errors into one line with the mend."""
    from huggingface_hub import errors

    # What the HTTP library raises of its own, whichever one the Hub's library stands on.
    http_error = cast(type[Exception], errors.HfHubHTTPError.__mro__[1])
    try:
        yield
    except errors.GatedRepoError as error:
        raise PipelineError(
            f"{name.repo} wants you to accept its terms on its page, and HF_TOKEN to be set"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise PipelineError(
            f"the Hub has no model {name.repo!r}, or it is private and HF_TOKEN is not set; "
            "check the name"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise PipelineError(f"{name.repo} has no revision {name.revision!r}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise PipelineError(f"{name.repo} has no file {name.file!r}") from error
    except errors.OfflineModeIsEnabled as error:
        raise PipelineError(
            f"{name} is not in the cache and HF_HUB_OFFLINE is set; unset it to download"
        ) from error
    except (http_error, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PipelineError(
            f"{name} could not be downloaded ({reason}); try again, whole files are kept"
        ) from error
