"""What PEFT's config says of a LoRA's scales, in a file's header or beside the file."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sd_adapters.adapter import AdapterError
from sd_checkpoint import load_json

_METADATA_KEY = "lora_adapter_metadata"
_PLAIN_PATH = re.compile(r"[\w.]+")


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """The config of one model, or of several with "unet." and so on before its keys."""

    said: Mapping[str, Any]

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> "PeftConfig":
        """Read a file's header, which may say nothing; raises ``AdapterError`` for one broken."""
        try:
            said = json.loads(metadata.get(_METADATA_KEY, "{}"))
        except json.JSONDecodeError as error:
            raise AdapterError(f"the header's {_METADATA_KEY} is not JSON") from error
        if not isinstance(said, dict):
            raise AdapterError(f"the header's {_METADATA_KEY} is no object")
        return cls(said)

    def alpha_at(self, path: str, rank: int) -> float:
        """Return the alpha of the layer at a path ("unet.mid_block..."): alpha / rank is its scale.

        Raises ``AdapterError`` where the config gives no number, or a pattern that is no path.
        """
        alpha = self._number(path, "lora_alpha", "alpha", pattern="alpha_pattern")
        if alpha is None:
            return float(rank)
        # With rsLoRA, arXiv:2312.03732, the scale is alpha / sqrt(rank).
        return alpha * (rank**0.5 if self._of(path, "use_rslora") else 1)

    def scale_at(self, path: str) -> float:
        """Return the scale of a layer at a path whose tensors do not show its rank.

        Raises ``AdapterError`` as ``alpha_at`` does, and for a rank below 1.
        """
        rank = self._number(path, "r", pattern="rank_pattern")
        if rank is None:
            return 1.0
        if rank < 1:
            raise AdapterError(f"the config's rank for {path} is {rank:g}, below 1")
        return self.alpha_at(path, int(rank)) / rank

    def _number(self, path: str, *keys: str, pattern: str) -> float | None:
        """Return what the first fitting pattern says of a path, or else what is said of all."""
        value = next((v for key in keys if (v := self._of(path, key)) is not None), None)
        patterns = self._of(path, pattern) or {}
        if not isinstance(patterns, dict):
            raise AdapterError(f"the config's {pattern} is no object")
        for ending, own in patterns.items():
            if not _PLAIN_PATH.fullmatch(ending):
                raise AdapterError(f"the config's {pattern} has {ending!r:.60}, no plain path")
            if path.endswith(f".{ending}"):
                value = own
                break
        if value is None:
            return None
        if not isinstance(value, int | float):
            raise AdapterError(f"the config says {value!r:.60} of {path}, which is no number")
        return float(value)

    def _of(self, path: str, key: str) -> Any:
        component = path.partition(".")[0]
        return self.said.get(f"{component}.{key}", self.said.get(key))


def with_config_beside(
    path: str | os.PathLike[str], metadata: Mapping[str, str]
) -> Mapping[str, str]:
    """Return a file's header with PEFT's config in it, if that is in the file beside.

    PEFT itself writes ``adapter_config.json`` beside ``adapter_model.safetensors``, and no header.
    Raises ``CheckpointError`` for a config that is not JSON.
    """
    config = Path(path).with_name("adapter_config.json")
    if _METADATA_KEY in metadata or Path(path).stem != "adapter_model" or not config.exists():
        return metadata
    return {**metadata, _METADATA_KEY: json.dumps(load_json(config))}
