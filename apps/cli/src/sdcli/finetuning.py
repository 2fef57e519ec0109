"""A finetuner's run on the command line: its settings, and how to use what comes of it."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdcli.errors import CommandError
from sdcli.finetune_options import FinetuneOptions
from sdcli.models import locate_model
from sdcli.training import rehearsed, show_result, trained

if TYPE_CHECKING:
    from sd_train import FinetuneConfig

_EMBEDDED = "scenes"
# How `sdcli txt2img` takes what a method makes.
_USES = {"lora": "--lora", "textual_inversion": "--embedding", "hypernetwork": "--hypernetwork"}


def finetune(
    method: str,
    common: FinetuneOptions,
    more: Mapping[str, object],
    tables: tuple[str, ...] = (),
) -> None:
    """Train and tell how to use what came of it; `tables` are of settings that may stay empty."""
    from sd_train import FinetuneConfig, load_run, load_toml
    from sd_train.run import FINETUNERS

    given = {**common.values(), **more}
    folder = common.out or _default_folder(method, common)
    if common.resume:
        config = load_toml(FINETUNERS[method], folder / "config.toml", given)
    else:
        config = _begun(method, common.config, given, tables)
    if common.dry_run:
        rehearsed(config, folder, as_json=common.json)
        return
    result = trained(config, folder, resume=common.resume)
    if result.model is None:
        show_result(result, None, as_json=common.json)
        return
    decided = load_run(folder)
    assert isinstance(decided, FinetuneConfig)
    product = result.model / decided.file_name
    lines = {"use it": _use(method, decided, product, common.model)}
    sheet = folder / "contact-sheet.png"
    if sheet.is_file():
        lines["contact sheet"] = str(sheet)
    show_result(result, product, as_json=common.json, lines=lines)


def _begun(
    method: str, config: Path | None, given: Mapping[str, object], tables: tuple[str, ...]
) -> "FinetuneConfig":
    """Return the settings of a new run: what is given, and for the rest what suits the model."""
    from sd_train import read_values
    from sd_train.finetune_presets import finetune_config
    from sd_train.run import FINETUNERS

    values = read_values(config, given)
    for table in tables:
        values.setdefault(table, {})
    data = values.get("data")
    if not isinstance(data, dict) or not data.get("folder"):
        raise CommandError("no pictures given: name their folder with --images")
    values["model"] = str(locate_model(str(values.get("model") or _EMBEDDED)))
    return finetune_config(FINETUNERS[method], values, origin=str(config or "options"))


def _default_folder(method: str, common: FinetuneOptions) -> Path:
    if common.images is None and common.config is None:
        raise CommandError(
            "no run given: name its folder with --out, or the pictures with --images"
        )
    source = Path(common.images or common.config or "").resolve()
    return Path("runs") / f"{method.replace('_', '-')}-{source.stem}"


def _use(method: str, config: "FinetuneConfig", product: Path, model: str | None) -> str:
    """Return the command line that draws with what was learnt."""
    from sd_train import SampleSettings

    prompt = config.instance_prompt
    placeholder = getattr(config, "placeholder", "")
    if placeholder:  # programs call an embedding as its file is called
        prompt = prompt.replace(placeholder, config.name)
    flag = _USES.get(method, "--model" if product.is_dir() else "--lora")
    words = ["sdcli", "txt2img", prompt, flag, str(product)]
    scale = config.samples.guidance_scale
    if scale != SampleSettings().guidance_scale:  # as the run's own pictures were drawn
        words += ["--guidance", f"{scale:g}"]
    if flag != "--model" and not _is_embedded(config.model):
        words += ["--model", model or config.model]
    return shlex.join(words)


def _is_embedded(model: str) -> bool:
    from sd_scenes import SceneError, model_folder

    try:
        return Path(model) == model_folder()
    except SceneError:
        return False
