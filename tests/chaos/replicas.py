"""The replicas of a graph as the machine sees them: processes that can be killed and stopped."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deployments.graph import Graph, on_ray

TAKES_S = 240.0  # for a replica to come back on busy cores


async def processes(graph: Graph, stage: str) -> list[int]:
    """Ids of the processes of a stage's replicas that answer."""

    async def ask() -> list[int]:
        from ray import serve

        handle = serve.get_deployment_handle(stage, graph.name)
        await handle.state.remote()
        states = await handle.broadcast("state").results_async(timeout_s=10.0)
        return sorted({int(state["pid"]) for state in states if not isinstance(state, Exception)})

    return await on_ray(ask())


async def whole(graph: Graph, stage: str, replicas: int) -> list[int]:
    """The same, once there are so many again. Raises TimeoutError."""
    async with asyncio.timeout(TAKES_S):
        while True:
            try:
                if len(found := await processes(graph, stage)) >= replicas:
                    return found
            except Exception as error:  # one of them is just dying
                print(f"  {stage}: {type(error).__name__}", flush=True)
            await asyncio.sleep(0.5)


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """It answers nobody, and does not end, while the block runs."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        try:
            os.kill(process, signal.SIGCONT)
        except ProcessLookupError:
            print("  what hung was replaced before it went on", flush=True)


async def controller() -> int:
    """The process of Serve's controller, which Ray starts again."""
    import ray
    from ray.serve.context import _get_global_client

    return int(await asyncio.to_thread(ray.get, _get_global_client()._controller.get_pid.remote()))


def shared_memory() -> set[str]:
    """Names that no living process holds."""
    held = set[str]()
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            lines = Path(f"/proc/{process}/maps").read_text().splitlines()
        except OSError:
            continue  # gone meanwhile
        held |= {line.split("/dev/shm/")[1] for line in lines if "/dev/shm/" in line}
    return set(os.listdir("/dev/shm")) - held
