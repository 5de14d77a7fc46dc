"""One run: the overlay on a head and two workers, callers outside, a worker drained and a worker killed."""

import asyncio
import os
import random
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from loadtest.quota_bench import tenants_of
from loadtest.spread import spread
from tests.chaos.listeners import oracle, questions
from tests.conftest import ROOT
from tests.deployments.graph import Graph
from tests.multihost.callers import Crowd, Turn
from tests.multihost.hosts import Host, make_network
from tests.multihost.left import left
from tests.multihost.manifest import Overlay
from tests.multihost.service import Operator, Service

OVERLAY = ROOT / "k8s" / "overlays" / "dev-cpu"
QUESTIONS = 6  # whose answers are known beforehand
STARTS_S = 300.0  # for pods to become ready on busy cores


@dataclass(frozen=True)
class Plan:
    streams: int
    reply_s: float
    blows: tuple[str, ...]  # of drain, kill
    seed: int
    database: str
    folder: Path


class Cluster:
    """Head and workers as the overlay has them."""

    def __init__(self, plan: Plan) -> None:
        self.overlay = Overlay.read(OVERLAY)
        token = secrets.token_hex(16)
        self._secrets = {
            ("chroma-database", "url"): plan.database,
            **{("chroma-secrets", name): secrets.token_hex() for name in ("key_secret", "token_secret")},
            ("chroma-secrets", "affinity_key"): secrets.token_hex(),
        }
        self._token = {"RAY_AUTH_TOKEN": token}
        self.key_secret = self._secrets["chroma-secrets", "key_secret"]
        self._folder, self._weights = plan.folder / "hosts", plan.folder / "weights"
        self._weights.mkdir(parents=True)
        self._weights.chmod(0o1777)
        self.head = self._host("head")
        self.workers: list[Host] = []
        self.operator = Operator(self.head.address, token)
        self.service = Service(self.overlay.port, random.Random(plan.seed))

    def _host(self, name: str) -> Host:
        self._number = getattr(self, "_number", 9) + 1
        return Host.make(name, self._number, self._folder)

    def prepare(self) -> None:
        """The overlay's Jobs."""
        for name in ("migrate", "fetch-weights"):
            job = self.overlay.job(name, self._secrets)
            self._host(name).run(job.command, job.environment, self._weights)

    async def start(self, workers: int) -> None:
        container = self.overlay.head(self._secrets)
        self.head.start(container.command, container.environment | self._token, self._weights, container.shm)
        await self.operator.answers()
        for _ in range(workers):
            self.add()
        await self.operator.put(self.overlay.serve_config)
        await self.ready(workers)

    def add(self) -> Host:
        """A worker's pod, as the operator makes one where one is missing."""
        host = self._host(f"worker-{len(self.workers) + 1}")
        container = self.overlay.worker(self.head.address, self._secrets)
        host.start(container.command, container.environment | self._token, self._weights, container.shm)
        self.workers.append(host)
        self.service.add(host)
        return host

    async def ready(self, pods: int) -> None:
        """Every deployment has its replicas, and every pod is behind the Service."""
        async with asyncio.timeout(STARTS_S):
            while True:
                running = await self.operator.replicas()
                whole = all(running[name] >= count for name, count in self.overlay.stages.items())
                if whole and len(self.service.ready) >= pods:
                    return
                self._check()
                await asyncio.sleep(0.5)

    def _check(self) -> None:
        for host in (self.head, *self.service_hosts()):
            if not host.running:
                raise RuntimeError(f"{host.name} has ended: {host.log.read_text()[-2000:]}")

    def service_hosts(self) -> list[Host]:
        return [host for host in self.workers if host.name in self.service.pods]

    def end(self) -> None:
        for host in (*self.workers, self.head):
            host.kill()


async def run(plan: Plan) -> dict[str, Any]:
    """Called inside namespaces of its own. Times are seconds; what went wrong is told as faults."""
    make_network()
    began = time.monotonic()
    cluster = Cluster(plan)
    probing = asyncio.create_task(cluster.service.probe())
    try:
        cluster.prepare()
        await cluster.start(2)
        print(f"{time.monotonic() - began:6.1f} s: two pods are ready", flush=True)
        return {"ready_s": round(time.monotonic() - began, 1), **await _disturb(plan, cluster, began)}
    finally:
        probing.cancel()
        cluster.end()
        await cluster.operator.close()


async def _disturb(plan: Plan, cluster: Cluster, began: float) -> dict[str, Any]:
    (tenant,) = await asyncio.to_thread(_tenant, plan, cluster)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # a connection a turn
    words = {"authorization": f"Bearer {tenant.key}"}
    async with httpx.AsyncClient(timeout=120.0, limits=limits, trust_env=False, headers=words) as http:
        name, url = await cluster.service.pod()
        graph = Graph(name, url, "", ())
        alone = await asyncio.gather(*(oracle(http, graph, [one]) for one in questions(plan.reply_s)[:QUESTIONS]))
        known = {asked: codes for told in alone for asked, codes in told.items()}
        crowd = Crowd(cluster.service, http, known)
        people = [asyncio.create_task(crowd.call(number)) for number in range(plan.streams)]
        told = []
        for blow in plan.blows:
            await asyncio.sleep(plan.reply_s)
            await crowd.ended_that_began_before(time.monotonic() - plan.reply_s)
            print(f"{time.monotonic() - began:6.1f} s: {blow}, {len(crowd.turns)} turns so far", flush=True)
            told.append(await (_drain if blow == "drain" else _kill)(cluster, crowd))
            print(f"{time.monotonic() - began:6.1f} s: {told[-1]}", flush=True)
        await asyncio.sleep(plan.reply_s)
        crowd.over.set()
        await asyncio.gather(*people)
    blows = [summary(blow, crowd.turns) for blow in told]
    faults = [fault for blow in blows for fault in blow.pop("faults")]
    spoken = len(known) + sum(turn.outcome == "completed" for turn in crowd.turns)
    faults += await left(cluster.service_hosts(), plan.database, range(spoken, len(known) + len(crowd.turns) + 1))
    pods = [host.name for host in cluster.workers]
    return {"streams": plan.streams, "reply_s": plan.reply_s, "pods": pods, "blows": blows, "faults": faults}


def _tenant(plan: Plan, cluster: Cluster) -> Any:
    os.environ["CHROMA_MODELS__INGRESS__KEY_SECRET"] = cluster.key_secret
    return tenants_of(plan.database, [2 * plan.streams + 8])


@dataclass(frozen=True)
class Blow:
    """What was done to a worker, and what of that could be seen."""

    kind: str
    pod: str
    since: float
    until: float  # when the pod had ended
    ended_by: str
    whole_s: float  # until two pods were ready again


async def _drain(cluster: Cluster, crowd: Crowd) -> Blow:
    """What deleting a pod does: its endpoint goes, preStop runs, SIGTERM, and after the grace period SIGKILL."""
    victim, since = cluster.service_hosts()[0], time.monotonic()
    cluster.service.forget(victim)
    cluster.add()
    await asyncio.sleep(cluster.overlay.pre_stop_s)
    victim.terminate()
    left_s = cluster.overlay.grace_s - cluster.overlay.pre_stop_s
    took_s = await asyncio.to_thread(victim.ends_within, left_s)
    until = time.monotonic()
    ended_by = "itself" if took_s is not None else "SIGKILL after the grace period"
    victim.kill()
    await cluster.ready(2)
    return Blow("drain", victim.name, since, until, ended_by, time.monotonic() - since)


async def _kill(cluster: Cluster, crowd: Crowd) -> Blow:
    """A host is gone, with everything on it; the Service learns of it by its probe."""
    victim, since = cluster.service_hosts()[0], time.monotonic()
    victim.kill()
    until = time.monotonic()
    await asyncio.sleep(1.0)
    cluster.service.forget(victim)
    cluster.add()
    await cluster.ready(2)
    return Blow("kill", victim.name, since, until, "SIGKILL", time.monotonic() - since)


def summary(blow: Blow, turns: list[Turn]) -> dict[str, Any]:
    """What became of the turns that were under way at some moment of the blow, and of those begun until all was whole.

    A turn through the ingress of a killed host loses its connection, which no resume can save: these are `cut`, and
    asked again. Every other turn that does not complete is `lost`, a fault.
    """
    after = [turn for turn in turns if turn.overlaps(blow.since, blow.since + blow.whole_s)]
    under_way = [turn for turn in after if turn.overlaps(blow.since, blow.until)]
    through = [turn for turn in under_way if turn.pod == blow.pod]
    cut = [turn for turn in after if turn.outcome == "cut" and turn.pod == blow.pod and blow.kind == "kill"]
    lost = [turn for turn in after if turn.outcome in ("cut", "failed") and turn not in cut]
    different = [turn for turn in after if not turn.same]
    completed = [turn for turn in after if turn.outcome == "completed"]
    faults = [f"{blow.kind}: lost a turn through {turn.pod}: {turn.why}" for turn in lost]
    faults += [f"{blow.kind}: other codes through {turn.pod}, {turn.losses} losses" for turn in different]
    if blow.kind == "drain" and blow.ended_by != "itself":
        faults.append(f"drain: {blow.pod} did not end within its grace period")
    return {
        "blow": blow.kind,
        "pod": blow.pod,
        "pod_ended_by": blow.ended_by,
        "pod_ended_s": round(blow.until - blow.since, 1),
        "whole_again_s": round(blow.whole_s, 1),
        "turns": len(after),
        "under_way": len(under_way),
        "through_the_pod": len(through),
        "completed": len(completed),
        "resumed": sum(turn.losses > 0 for turn in completed),
        "cut_with_their_ingress": len(cut),
        "lost": len(lost),
        "other_codes": len(different),
        "refused_and_asked_again": sum(turn.outcome == "refused" for turn in after),
        "unreachable_and_asked_again": sum(turn.outcome == "unreachable" for turn in after),
        "underruns": sum(turn.underruns for turn in completed),
        "longest_pause_s": round(max((turn.longest_pause_s for turn in completed), default=0.0), 2),
        "first_audio_s": spread([t.first_audio_s for t in completed if t.first_audio_s is not None], 3),
        "faults": faults,
    }
