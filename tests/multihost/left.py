"""What the turns of a run may not leave behind, as Prometheus and the database tell it."""

import asyncio
import re

import httpx

from tests.chaos.left import unwritten
from tests.multihost.hosts import Host

METRICS = 8080
HELD = re.compile(r"^ray_chroma_slots_held\{(?P<tags>[^}]*)\} (?P<count>[\d.e+]+)$", re.MULTILINE)
LAG_S = 30.0  # of gauges behind what they tell
LAPSE_S = 60.0  # until another replica has closed what a dead one left open


async def left(pods: list[Host], database: str, turns: range) -> list[str]:
    """turns: rows that usage may have. A refused turn has one where it came as far as the graph."""
    faults = []
    async with httpx.AsyncClient(timeout=10.0, trust_env=False) as http:
        for pod in pods:
            faults += await _slots(http, pod)
    return faults + await unwritten(database, turns, LAPSE_S)


async def _slots(http: httpx.AsyncClient, pod: Host) -> list[str]:
    """Those that a pod's replicas still tell of after a while. A pod whose replicas tell nothing is a fault, too."""
    held: list[str] = ["nothing was told yet"]
    for _ in range(int(LAG_S)):
        text = (await http.get(f"http://{pod.address}:{METRICS}/metrics")).text
        found = [(match["tags"], float(match["count"])) for match in HELD.finditer(text)]
        held = [f"{tags}: {count}" for tags, count in found if count]
        if found and not held:
            return []
        await asyncio.sleep(1.0)
    return [f"{pod.name} still holds slots: {held}"]
