"""What a run may not leave behind: slots, permits, open usage, tasks, threads, descriptors, processes, memory."""

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from chroma_models.errors import Overloaded
from deployments.ingress.store.database import Database
from deployments.ingress.store.tenant_tables import Permit, UsageRow
from loadtest.processes import family
from tests.chaos.replicas import processes, shared_memory
from tests.deployments.graph import Graph

# In shared memory. sem.mp- are semaphores of 32 bytes with which Python spawns vLLM's engine: nobody but the resource
# tracker of the process that made them takes them away, and Ray kills that one along with its replica.
OF_OTHERS = ("PostgreSQL", "plasma", "ray", "sem.mp-")
SLACK = 8  # tasks that a replica may have more than before the run
SLACK_OF_PEERS = 24  # descriptors and threads: every replica that came instead of another one is a new peer


@dataclass(frozen=True)
class Before:
    """What was held while nobody listened."""

    states: dict[str, dict[str, Any]]
    memory: set[str]
    held: dict[int, tuple[int, int]]  # by process: descriptors, threads
    replicas: int

    @classmethod
    async def now(cls, graph: Graph) -> "Before":
        every = [process for stage in graph.stages for process in await processes(graph, stage)]
        held = {process: _held(process) for process in every}
        return cls(await graph.idle(), shared_memory(), held, _replicas(graph))


def _held(process: int) -> tuple[int, int]:
    return len(os.listdir(f"/proc/{process}/fd")), len(os.listdir(f"/proc/{process}/task"))


async def left(graph: Graph, before: Before, replicas: int) -> list[str]:
    """What the turns should have taken with them and did not. Every stage is whole again."""
    try:
        states = await graph.idle()
    except AssertionError as error:
        return [str(error)]
    faults = []
    for stage, state in states.items():
        if state["tasks"] > (known := before.states[stage]["tasks"]) + SLACK:
            faults.append(f"a {stage} has {state['tasks']} tasks, {known} before")
    for process, known_held in before.held.items():
        if os.path.exists(f"/proc/{process}"):
            for name, now, known in zip(("descriptors", "threads"), _held(process), known_held, strict=True):
                if now > known + SLACK_OF_PEERS:
                    faults.append(f"process {process} has {now} {name}, {known} before")
    alive = {process for stage in graph.stages for process in await processes(graph, stage)}
    if len(alive) != (wanted := replicas * (len(graph.stages) - 1) + 1):
        faults.append(f"{len(alive)} replicas answer, not {wanted}")
    if strays := await _strays(graph, before):
        faults.append(f"{strays} processes of replaced replicas are left")
    if names := {name for name in shared_memory() - before.memory if not name.startswith(OF_OTHERS)}:
        faults.append(f"shared memory is left: {sorted(names)[:5]}")
    return faults


def _replicas(graph: Graph) -> int:
    """Processes of this cluster that bear the name of a stage, whatever graph it is of."""
    return sum(title in graph.stages for title in family(os.getpid()).values())


async def _strays(graph: Graph, before: Before, within_s: float = 30.0) -> int:
    """Processes of replicas that there were not before, once those that are being replaced have had time to end."""
    for _ in range(int(within_s)):
        if _replicas(graph) <= before.replicas:
            return 0
        await asyncio.sleep(1.0)
    return _replicas(graph) - before.replicas


async def unwritten(database: str, turns: range, within_s: float = 10.0) -> list[str]:
    """Usage has a closed row for every turn but those that were refused, so many of them, and nobody holds a permit."""
    store = Database(database, 10.0)
    await store.open()
    try:
        for _ in range(int(10 * within_s)):
            async with store.session() as session:
                every = select(UsageRow.outcome).where(UsageRow.outcome != Overloaded.code)
                rows = (await session.scalars(every)).all()
                held = (await session.scalars(select(Permit.number).where(Permit.expires_at > time.time()))).all()
            if len(rows) >= turns.start and "running" not in rows and not held:
                break
            await asyncio.sleep(0.1)
    finally:
        await store.close()
    faults = [] if len(rows) in turns else [f"usage has {len(rows)} rows for {turns.start} to {turns.stop - 1} turns"]
    faults += [f"{len(held)} permits are held"] if held else []
    return faults + ([f"{rows.count('running')} rows of usage are open"] if "running" in rows else [])
