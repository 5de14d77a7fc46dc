"""Alerts and dashboards ask for what a live graph really exports, by labels that it really has."""

import asyncio
import re

import pytest

from tests.deployments import observed
from tests.deployments.graph import Graph
from tests.deployments.test_graph import client
from tests.k8s import queries

pytestmark = pytest.mark.serve


async def test_no_query_asks_for_what_is_not_there(watched: Graph) -> None:
    recorded = {rule["record"] for rule in queries.rules() if "record" in rule}
    asked = [(where, each) for where, query in queries.queries() for each in queries.selectors(query)]
    wanted = {each.name for _, each in asked} - recorded
    async with client() as http:
        await asyncio.gather(*(watched.ask(http) for _ in range(2)))
    samples = await observed.there(*wanted)
    for where, each in asked:
        if each.name in recorded:
            continue
        labels = {label for series in samples.labels(each.name) for label in series}
        assert {matcher.name for matcher in each.matchers.matchers} <= labels, (where, each.name)


async def test_lines_are_named_by_labels_that_are_there(watched: Graph) -> None:
    named = [
        (f"{file}: {panel['title']}", queries.selectors(target["expr"].replace("$__rate_interval", "5m")), label)
        for file, panel in queries.panels()
        for target in panel["targets"]
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"])
    ]
    samples = await observed.there(*{each.name for _, selected, _ in named for each in selected})
    for where, selected, label in named:
        for each in selected:
            assert any(label in series for series in samples.labels(each.name)), (where, each.name, label)
