"""Parts of a cluster die under listeners: they hear what they would have heard."""

from pathlib import Path

import pytest

from tests.chaos.run import Plan, disturb, start

pytestmark = pytest.mark.serve


async def test_what_dies_under_a_turn_is_not_heard(cluster: None, tiny: Path, tmp_path: Path) -> None:
    plan = Plan(3, streams=3, kills=1, pauses=0, replicas=2, reply_s=3.0, reasoner="torch", placement="split")
    database = f"sqlite:///{tmp_path / 'voices.db'}"
    graph = start(plan, tiny, database)
    try:
        told = await disturb(graph, plan, database)
    finally:
        graph.stop()
    assert told["faults"] == []
    assert told["turns"] >= plan.streams
    assert told["blows"] == {f"{stage} kill": 1 for stage in ("Backbone", "Codec", "Decoder", "Reasoner")}
