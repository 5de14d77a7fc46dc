"""The chain of four stages, without models: how long a hop takes, and what it costs each process."""

import asyncio
from collections.abc import Sequence
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.bench.relays import Relay, Sink, Source
from deployments.cluster import QUIET, local_ray

APP = "hops"
CHAIN = ("Source", "Backbone", "Codec", "Sink")
OPTIONS = {"max_ongoing_requests": 2000, "ray_actor_options": {"num_cpus": 0}}
WARM_S = 2.0
IDLE_S = 4.0
BATCHES = (64, 256, 512)  # rows of one call to a split Decoder


def measure(streams: Sequence[int], seconds: float, rate_hz: float) -> list[dict[str, Any]]:
    """One entry per number of streams, and one with the unary calls."""
    with local_ray():
        serve.start(proxy_location="Disabled", logging_config=QUIET)
        source = serve.deployment(Source, name="Source", **OPTIONS).bind()
        backbone = serve.deployment(Relay, name="Backbone", **OPTIONS).bind(source)
        codec = serve.deployment(Relay, name="Codec", **OPTIONS).bind(backbone)
        sink = serve.deployment(Sink, name="Sink", **OPTIONS).bind(codec, source)
        serve.run(sink, name=APP, route_prefix=None, logging_config=QUIET)
        return asyncio.run(_measure(streams, seconds, rate_hz))


async def _measure(streams: Sequence[int], seconds: float, rate_hz: float) -> list[dict[str, Any]]:
    handles = {name: serve.get_deployment_handle(name, APP) for name in CHAIN}
    sink = handles["Sink"]
    await sink.listen.remote(4, WARM_S, rate_hz)
    before = await _look(handles)
    await asyncio.sleep(IDLE_S)
    after = await _look(handles)
    idle = {name: (after[name]["cpu_s"] - before[name]["cpu_s"]) / IDLE_S for name in CHAIN}
    measured = []
    for count in streams:
        before = await _look(handles)
        items = await sink.listen.remote(count, seconds, rate_hz)
        after = await _look(handles)
        measured.append({"streams": count, "items": items, **_account(before, after, items, count, seconds, idle)})
    unary = {str(rows): await sink.unary.remote(rows) for rows in BATCHES}
    return [*measured, {"unary_ms_by_rows": unary}]


async def _look(handles: dict[str, DeploymentHandle]) -> dict[str, dict[str, Any]]:
    return {name: await handle.look.remote() for name, handle in handles.items()}


def _account(
    before: dict[str, dict[str, Any]],
    after: dict[str, dict[str, Any]],
    items: int,
    streams: int,
    seconds: float,
    idle: dict[str, float],
) -> dict[str, Any]:
    """The source and the sink work one side of a hop, a relay works two. What an idle replica uses is not an item's."""
    cpu_s = {name: after[name]["cpu_s"] - before[name]["cpu_s"] - seconds * idle[name] for name in CHAIN}
    sides = {"Source": 1, "Backbone": 2, "Codec": 2, "Sink": 1}
    return {
        "age_ms_after_hops": {str(hop): after[name]["age_ms"] for hop, name in enumerate(CHAIN) if hop},
        "hop_ms_p50": round(after["Sink"]["age_ms"]["p50"] / (len(CHAIN) - 1), 3),
        "cpu_us_per_item_and_side": {n: round(1e6 * s / items / sides[n], 1) for n, s in cpu_s.items()},
        "idle_cpu_share": {n: round(share, 4) for n, share in idle.items()},
        "cpu_us_per_stream_s": {n: round(1e6 * s / streams / seconds) for n, s in cpu_s.items()},
    }
