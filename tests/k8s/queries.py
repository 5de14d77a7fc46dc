"""Every query of the alerts and the dashboards, and the metrics that it reads."""

import json
from collections.abc import Iterator
from typing import Any

import promql_parser
import yaml

from tests.k8s.kustomize import K8S

MONITORING = K8S / "monitoring"
DASHBOARDS = MONITORING / "dashboards"
OF_GRAFANA = {"$__rate_interval": "5m", "$application": "chroma"}


def rules() -> list[dict[str, Any]]:
    """Alerts and recordings, in order."""
    alerts = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in alerts["spec"]["groups"] for rule in group["rules"]]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Of every dashboard, with its file's name."""
    for file in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            yield file.name, panel


def queries() -> Iterator[tuple[str, str]]:
    """Where each stands, and what it says once Grafana has filled its variables in."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for file, panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            for variable, value in OF_GRAFANA.items():
                query = query.replace(variable, value)
            yield f"{file}: {panel['title']}", query


def selectors(query: str) -> list[promql_parser.VectorSelector]:
    """Every series that a query selects. Raises ValueError where it is no PromQL."""
    found: list[promql_parser.VectorSelector] = []

    def look(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(query), look)
    return found
