"""What a command prints on stdout: lines for people, or one JSON document."""

import json
from collections.abc import Mapping
from typing import Any


def show(text: str, document: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a result: its text, or the document that says the same."""
    print(json.dumps(document, ensure_ascii=False, default=str) if as_json else text)
