"""What Prometheus and Grafana are given, held against promtool, the rendered pods, and the code it is made by."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import dashboards
from tests.k8s import queries
from tests.k8s.kustomize import K8S, OVERLAYS, built, of_kind
from tests.k8s.pod_rules import templates

TESTS = Path(__file__).with_name("alerts_test.yaml")
RULES = "alerts.rules.yaml"


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed; Debian's prometheus has it")
    return subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def write(folder: Path, spec: Any) -> None:
    """As Prometheus' operator would hand them on."""
    (folder / RULES).write_text(yaml.safe_dump(spec), encoding="utf-8")
    shutil.copy(TESTS, folder)


@pytest.fixture
def spec(tmp_path: Path) -> Any:
    """Of the rules, which also lie in tmp_path."""
    spec = of_kind(list(yaml.safe_load_all((queries.MONITORING / "alerts.yaml").read_text())), "PrometheusRule")["spec"]
    write(tmp_path, spec)
    return spec


@pytest.mark.usefixtures("spec")
def test_the_rules_are_rules_and_alert_when_they_should(tmp_path: Path) -> None:
    checked = promtool(tmp_path, "check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool(tmp_path, "test", "rules", TESTS.name)
    assert tested.returncode == 0, tested.stdout + tested.stderr


BROKEN = [
    ("ChromaFirstAudioLate", "0.3", "3"),
    ("ChromaUnderruns", "0.001", "0.01"),
    ("ChromaManyUnderruns", "> 0.05", "> 0.5"),
    ("ChromaRefusals", "0.02", "0.6"),
    ("ChromaFailedTurns", "0.01", "0.1"),
    ("ChromaFaultyReplies", "by (fault)", "by (stage)"),
    ("ChromaProbeSilent", "max by (replica)", "max"),
    ("ChromaProbeGone", "[1h]", "[1m]"),
    ("ChromaSlotsNearlyFull", "0.9", "0.5"),
    ("ChromaStepsSlow", 'stage="backbone"', 'stage="codec"'),
]


def test_every_alert_that_is_changed_fails_its_test(tmp_path: Path, spec: Any) -> None:
    for alert, was, is_now in BROKEN:
        (rule,) = [rule for group in spec["groups"] for rule in group["rules"] if rule.get("alert") == alert]
        assert was in rule["expr"]
        rule["expr"] = rule["expr"].replace(was, is_now)
    write(tmp_path, spec)
    tested = promtool(tmp_path, "test", "rules", TESTS.name)
    assert tested.returncode == 1
    told = tested.stdout + tested.stderr
    assert [alert for alert, _, _ in BROKEN if f"alertname: {alert}," not in told] == []


def test_every_alert_is_seen_to_come_and_seen_to_stay_away() -> None:
    alerts = [rule["alert"] for rule in queries.rules() if "alert" in rule]
    assert set(alerts) == {alert for alert, _, _ in BROKEN}
    comes, stays = Counter[str](), Counter[str]()
    for each in yaml.safe_load(TESTS.read_text())["tests"]:
        for case in each["alert_rule_test"]:
            (comes if case.get("exp_alerts") else stays)[case["alertname"]] += 1
    assert set(alerts) == set(comes) == set(stays)
    for rule in queries.rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert rule["for"]
            assert rule["annotations"].keys() == {"summary", "description"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_ray_pod_is_found_and_lets_itself_be_asked(overlay: str) -> None:
    (monitor,) = yaml.safe_load_all((queries.MONITORING / "pods.yaml").read_text())
    assert monitor["kind"] == "PodMonitor"
    # the operator labels each pod of a RayCluster so; what we render must not take that away
    assert monitor["spec"]["selector"] == {"matchExpressions": [{"key": "ray.io/cluster", "operator": "Exists"}]}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    manifests = built(K8S / "overlays" / overlay)
    service = of_kind(manifests, "RayService")
    numbers = set()
    for where, template in templates([service]):
        ports = [port for each in template["spec"]["containers"] for port in each.get("ports", ())]
        (port,) = [port["containerPort"] for port in ports if port["name"] == endpoint["port"]]
        numbers.add(port)
        assert len({each["name"] for each in ports}) == len(ports), where
    policy = of_kind(manifests, "NetworkPolicy", "chroma-ray")["spec"]
    opened = {
        port["port"]
        for each in policy["ingress"]
        for source in each["from"]
        if source.get("namespaceSelector", {}).get("matchLabels") == {"kubernetes.io/metadata.name": "monitoring"}
        for port in each["ports"]
    }
    assert numbers == opened == {8080}


def test_it_builds_and_grafana_finds_the_dashboards() -> None:
    found = built(queries.MONITORING)
    assert sorted(each["kind"] for each in found) == ["ConfigMap", "PodMonitor", "PrometheusRule"]
    assert {each["metadata"]["namespace"] for each in found} == {"chroma"}
    given = of_kind(found, "ConfigMap")
    assert given["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {name: json.loads(text)["uid"] for name, text in given["data"].items()} == {
        "listeners.json": "chroma-listeners",
        "stages.json": "chroma-stages",
    }


def test_the_dashboards_are_those_that_the_code_makes() -> None:
    made = dashboards.pages()
    assert {file.name for file in queries.DASHBOARDS.iterdir()} == set(made)
    for name, text in made.items():
        assert (queries.DASHBOARDS / name).read_text(encoding="utf-8") == text, "run `make dashboards`"


def test_panels_do_not_overlap_and_each_line_has_a_name() -> None:
    places = Counter[tuple[str, int, int]]()
    for file, panel in queries.panels():
        at = panel["gridPos"]
        places.update(
            (file, x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
        )
        assert at["x"] + at["w"] <= 24
        assert all([panel["title"], panel["description"], panel["fieldConfig"]["defaults"]["unit"]])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert all(target["legendFormat"] for target in panel["targets"])
    assert max(places.values()) == 1


def test_every_query_parses() -> None:
    told = list(queries.queries())
    assert len(told) > 40
    for where, query in told:
        assert queries.selectors(query), where
