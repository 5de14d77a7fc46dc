"""Everything that can be said about manifests without a cluster, in one list."""

from typing import Any

import kubernetes_validate
import yaml

from tests.k8s import crds, graph_rules, operator_rules, pod_rules, serve_keys

Json = dict[str, Any]

KUBERNETES = "1.34"


def complaints(manifests: list[Json]) -> list[str]:
    """Empty where an operator could apply them. What is broken for one judge is not shown to the next."""
    for judge in (_schemas, _serve, _operator, pod_rules.complaints, graph_rules.complaints):
        if found := judge(manifests):
            return found
    return []


def _schemas(manifests: list[Json]) -> list[str]:
    found = []
    for each in manifests:
        where = f"{each.get('kind')}/{each['metadata']['name']}"
        if str(each.get("apiVersion")).startswith("ray.io/"):
            found += [f"{where} {what}" for what in crds.complaints(each)]
            continue
        try:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            found.append(f"{where}: {getattr(error, 'message', error)}")
    return found


def _serve(manifests: list[Json]) -> list[str]:
    found: list[str] = []
    for each in manifests:
        if each["kind"] == "RayService":
            try:
                found += serve_keys.complaints(yaml.safe_load(each["spec"].get("serveConfigV2") or ""))
            except yaml.YAMLError as error:
                found.append(f"serveConfigV2: {error}")
    return found


def _operator(manifests: list[Json]) -> list[str]:
    return [what for each in manifests if each["kind"] == "RayService" for what in operator_rules.complaints(each)]
