"""KubeRay's custom resource definitions, held against a manifest as an API server would, without one.

openAPIV3Schema becomes a JSON schema that refuses unknown fields; before it is asked, nulls go and defaults come in, as
they do on the server. What JSON schema cannot say is asked afterwards: keys of list-maps, and the rules in CEL.
"""

import os
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT

FOLDER = Path(os.environ.get("CHROMA_KUBERAY_CRDS", ROOT.parent / "shared" / "crds"))

Json = dict[str, Any]

# The rules that these definitions have and that speak of one object; a new one must be written down here.
MANAGERS = ("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")
CEL = {"self in ['ray.io/kuberay-operator', 'kueue.x-k8s.io/multikueue']": lambda told: told in MANAGERS}


def needed() -> None:
    """Skip where the definitions are not at hand: they are KubeRay's, not ours to copy."""
    if not next(FOLDER.rglob("ray.io_rayservices.yaml"), None):
        pytest.skip(f"KubeRay's CRDs are not in {FOLDER}; CHROMA_KUBERAY_CRDS names another folder")


@cache
def _definition(kind: str) -> Json:
    for file in FOLDER.rglob("ray.io_*.yaml"):
        crd = yaml.load(file.read_text(), yaml.CSafeLoader)
        if crd["spec"]["names"]["kind"] == kind:
            return crd
    raise LookupError(kind)


@cache
def _schema(kind: str, version: str) -> tuple[Json, jsonschema.protocols.Validator]:
    """As it stands, and made strict. Metadata is Kubernetes' own to judge."""
    versions = {found["name"]: found for found in _definition(kind)["spec"]["versions"] if found["served"]}
    told = deepcopy(versions[version]["schema"]["openAPIV3Schema"])
    told["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    strict = _strict(told)
    return told, jsonschema.Draft202012Validator(strict)


def _strict(schema: Json) -> Json:
    made: Json = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties"):
            made[key] = {name: _strict(part) for name, part in value.items()}
        elif key in ("items", "additionalProperties", "not") and isinstance(value, dict):
            made[key] = _strict(value)
        elif key in ("allOf", "anyOf", "oneOf"):
            made[key] = [_strict(part) for part in value]
        elif key not in ("description", "default"):
            made[key] = value
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    if schema.get("nullable") and "type" in made:
        made["type"] = [made["type"], "null"]
    open_ended = "additionalProperties" in made or schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in made and made.get("type") == "object" and not open_ended:
        made["additionalProperties"] = False
    return made


def complaints(manifest: Json) -> list[str]:
    """What an API server with these definitions would refuse it for."""
    version = manifest["apiVersion"].split("/")[1]
    told, validator = _schema(manifest["kind"], version)
    manifest = deepcopy(manifest)
    _as_stored(told, manifest)
    found = [f"{_path(error.absolute_path)}: {error.message[:200]}" for error in validator.iter_errors(manifest)]
    return [*found, *_beyond(told, manifest, ())]


def _as_stored(schema: Any, node: Any) -> None:
    if not isinstance(schema, dict):
        return
    if isinstance(node, list):
        for each in node:
            _as_stored(schema.get("items"), each)
    if not isinstance(node, dict):
        return
    known = schema.get("properties") or {}
    for key in [key for key, value in node.items() if value is None and not known.get(key, {}).get("nullable")]:
        del node[key]
    for key, part in known.items():
        if key not in node and "default" in part:
            node[key] = deepcopy(part["default"])
    for key, value in node.items():
        _as_stored(known.get(key, schema.get("additionalProperties")), value)


def _beyond(schema: Any, node: Any, at: tuple[Any, ...]) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not CEL[rule["rule"]](node):
            yield f"{_path(at)}: {rule.get('message', rule['rule'])}"
    if isinstance(node, dict):
        known = schema.get("properties") or {}
        for key, value in node.items():
            yield from _beyond(known.get(key, schema.get("additionalProperties")), value, (*at, key))
    elif isinstance(node, list):
        if schema.get("x-kubernetes-list-type") == "map":
            yield from _repeated(schema, node, at)
        for i, each in enumerate(node):
            yield from _beyond(schema.get("items"), each, (*at, i))


def _repeated(schema: Json, node: list[Any], at: tuple[Any, ...]) -> Iterator[str]:
    seen = set()
    for i, each in enumerate(node):
        key = tuple(str(each.get(name)) for name in schema["x-kubernetes-list-map-keys"])
        if key in seen:
            yield f"{_path((*at, i))}: a second {' '.join(key)}"
        seen.add(key)


def _path(at: Any) -> str:
    return "/".join(map(str, at))
