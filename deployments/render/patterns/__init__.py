"""Manifests with holes: what no setting decides, as YAML with its reasons."""

from importlib.resources import files
from typing import Any

import yaml


def pattern(name: str) -> dict[str, Any]:
    """A fresh copy of NAME.yaml, its own to change: aliases of YAML are told apart."""
    text = files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = _apart(yaml.safe_load(text))
    return found


def _apart(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _apart(value) for key, value in node.items()}
    return [_apart(value) for value in node] if isinstance(node, list) else node
