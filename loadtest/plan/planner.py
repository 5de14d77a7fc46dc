"""From a promise and a number of conversations to GPUs: which stages share one, how many of them, and what binds."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from loadtest.plan import roofline
from loadtest.plan.curve import Curve
from loadtest.plan.measured import Crowd, Measured
from loadtest.plan.pool import Limit, Pool, Promised, Stage
from loadtest.plan.queueing import erlang_b, fewest
from loadtest.slo import Slo

Layout = Literal["single", "split"]
LAYOUTS: dict[Layout, dict[str, tuple[str, ...]]] = {
    "single": {"everything": ("Reasoner", "Backbone", "Decoder", "Codec")},
    "split": {"thinking": ("Reasoner",), "speaking": ("Backbone", "Decoder", "Codec")},
}
HOPS = 4  # from the ingress to the Reasoner
HOP_S = 1e-3  # where nobody has measured one
REFUSED, UNDERRUN = 1e-3, 1e-3  # promised where the SLO is silent
CORES = 12e-3  # of the ingress, for a live conversation, where nobody has measured


class BadPlan(ValueError):
    """What was asked for cannot be planned; the message says what to change."""


@dataclass(frozen=True)
class Workload:
    sessions: int
    turns_per_minute: float
    question_s: float
    reply_s: float

    def __post_init__(self) -> None:
        if min(self.sessions, self.turns_per_minute, self.question_s, self.reply_s) <= 0:
            raise BadPlan("Sessions, turns a minute, question and reply are all above 0.")
        taken_s = self.turns_per_minute * (self.question_s + self.reply_s)
        if taken_s > 60:
            raise BadPlan(
                f"{self.turns_per_minute:g} turns of {self.question_s:g} s and {self.reply_s:g} s are {taken_s:g} s of "
                "a minute: ask for fewer or shorter ones."
            )

    @property
    def turns_hz(self) -> float:
        """Questions a second, of all callers."""
        return self.sessions * self.turns_per_minute / 60

    def load(self, alone_s: float) -> float:
        """Answers in progress, on average: arrivals times the time each stays (Little)."""
        return self.turns_hz * (self.reply_s + alone_s)


@dataclass(frozen=True)
class PoolPlan:
    """One kind of replica: a GPU with its stages."""

    pool: Pool
    streams: int
    limits: tuple[Limit, ...]
    replicas: int
    refused: float
    spare: int  # further replicas, so that the promise holds with one node lost
    refused_with_a_node_lost: float

    @property
    def binding(self) -> Limit:
        return self.limits[0]


@dataclass(frozen=True)
class Plan:
    layout: Layout
    gpu: roofline.Gpu
    slo: Slo
    workload: Workload
    load: float
    alone_s: float
    alone_source: str
    hop_source: str
    first_audio_s: float  # at the streams planned for
    pools: tuple[PoolPlan, ...]
    gpus_per_node: int
    ingress_cores: float
    ingress_source: str
    crowds: tuple[tuple[Crowd, float], ...]  # measured ones, with the model's p95 of first audio for them

    @property
    def gpus(self) -> int:
        return sum(pool.replicas for pool in self.pools)

    @property
    def gpus_with_a_node_to_lose(self) -> int:
        return self.gpus + sum(pool.spare for pool in self.pools)

    @property
    def binding(self) -> tuple[PoolPlan, Limit]:
        """The pool that needs most GPUs, and what limits it."""
        worst = max(self.pools, key=lambda pool: pool.replicas)
        return worst, worst.binding


def plan(
    slo: Slo,
    workload: Workload,
    gpu: roofline.Gpu,
    measured: Measured,
    layout: Layout | None = None,
    gpus_per_node: int = 8,
) -> Plan:
    """The layout that needs fewest GPUs, if none is named. Raises BadPlan."""
    found: list[Plan] = []
    for each in [layout] if layout else list(LAYOUTS):
        try:
            found.append(_plan(slo, workload, gpu, measured, each, gpus_per_node))
        except BadPlan as error:
            reason = error
    if not found:
        raise reason
    return min(found, key=lambda each: each.gpus)


def _plan(
    slo: Slo, workload: Workload, gpu: roofline.Gpu, measured: Measured, layout: Layout, gpus_per_node: int
) -> Plan:
    alone_s, alone_source, hop_source = first_audio_alone(slo, workload, gpu, measured)
    promised = promised_of(slo, alone_s, len(LAYOUTS[layout]))
    load = workload.load(alone_s)
    refused = slo.find("refused")
    most_refused = max(1e-9, refused.most if refused else REFUSED)
    pools = [
        _pool_plan(pool, promised, workload, alone_s, most_refused, gpus_per_node)
        for pool in pools_of(layout, slo, workload, gpu, measured)
    ]
    cores, cores_source = measured.ingress_cores or (CORES, "assumed")
    return Plan(
        layout=layout,
        gpu=gpu,
        slo=slo,
        workload=workload,
        load=load,
        alone_s=alone_s,
        alone_source=alone_source,
        hop_source=hop_source,
        first_audio_s=alone_s + sum(each.pool.wait_s(each.streams, promised.share) for each in pools),
        pools=tuple(pools),
        gpus_per_node=gpus_per_node,
        ingress_cores=cores * workload.sessions,
        ingress_source=cores_source,
        crowds=tuple((crowd, _modelled(crowd, slo, workload, gpu, measured)) for crowd in measured.crowds),
    )


def _modelled(crowd: Crowd, slo: Slo, workload: Workload, gpu: roofline.Gpu, measured: Measured) -> float:
    """First audio at p95, in seconds, of a crowd on one GPU that speaks on and on."""
    work_s, _ = _work(slo, workload, gpu, measured)
    (pool,) = pools_of("single", slo, workload, gpu, measured)
    arrivals_hz = crowd.streams / (workload.reply_s + work_s)
    return work_s + replace(pool, arrivals_hz=arrivals_hz).wait_s(crowd.streams, 0.95)


def promised_of(slo: Slo, alone_s: float, pools: int) -> Promised:
    """What may be waited is divided evenly between the pools a turn passes. Raises BadPlan."""
    first, underrun = slo.find("first_audio"), slo.find("underrun")
    share = first.share if first is not None and first.share else 0.95
    slack_s = math.inf if first is None else first.most - alone_s
    if first is not None and slack_s <= 0:
        raise BadPlan(f"One stream alone has its first audio after {1000 * alone_s:.0f} ms: {first} cannot be kept.")
    return Promised(slack_s / pools, share, underrun.most if underrun else UNDERRUN)


def first_audio_alone(slo: Slo, workload: Workload, gpu: roofline.Gpu, measured: Measured) -> tuple[float, str, str]:
    """Seconds for one stream, hops included, at the promised share of turns; and the sources of both."""
    hop_s, hop_source = measured.hop_s or (HOP_S, "assumed")
    work_s, source = _work(slo, workload, gpu, measured)
    return work_s + HOPS * hop_s, source, hop_source


def _work(slo: Slo, workload: Workload, gpu: roofline.Gpu, measured: Measured) -> tuple[float, str]:
    """Seconds until the first audio of one stream in one process; and the source."""
    first = slo.find("first_audio")
    if measured.first_audio:
        nearest = min(measured.first_audio, key=lambda each: abs(each.question_s - workload.question_s))
        longer_s = max(0.0, workload.question_s - nearest.question_s)
        more_ms = roofline.first_work_ms(longer_s, gpu)["Reasoner"] if longer_s else 0.0
        alone_s, source = nearest.at(first.share if first and first.share else 0.95)
        source += f", {longer_s:g} s of question added by roofline" if longer_s else ""
        return alone_s + more_ms / 1e3, source
    work_ms = sum(roofline.first_work_ms(workload.question_s, gpu).values())
    return work_ms / 1e3, f"roofline of {gpu.name} at {roofline.EFFICIENCY:.0%}"


def pools_of(layout: Layout, slo: Slo, workload: Workload, gpu: roofline.Gpu, measured: Measured) -> list[Pool]:
    """One replica of each kind, with nobody in it.

    What a new turn costs is taken to be all of the time until its first audio, as if nothing of it overlapped with
    another turn's: what was measured of crowds is no better than that. The roofline divides it between the stages.
    """
    shapes, work = roofline.shapes(), roofline.first_work_ms(workload.question_s, gpu)
    first_s, first_source = _work(slo, workload, gpu, measured)
    work = {name: ms * 1e3 * first_s / sum(work.values()) for name, ms in work.items()}
    host_us, host_source = measured.host_us or (0.0, "not known")

    def stage(name: str) -> Stage:
        busy: Curve = measured.curves.get(name) or roofline.curve(name, gpu)
        process = 0.0 if name == "Decoder" and len(LAYOUTS[layout]) == 1 else roofline.PROCESS_BYTES
        return Stage(
            name,
            busy,
            work[name],
            0.0 if name == "Decoder" else host_us,
            host_source,
            shapes[name].weights_bytes,
            shapes[name].slot_bytes,
            process,
            first_source,
        )

    return [
        Pool(name, tuple(map(stage, stages)), workload.reply_s, memory_bytes=gpu.memory_bytes)
        for name, stages in LAYOUTS[layout].items()
    ]


def _pool_plan(
    pool: Pool, promised: Promised, workload: Workload, alone_s: float, refused: float, lost: int
) -> PoolPlan:
    """The fewest replicas that refuse no more than a share of turns, each by itself. Raises BadPlan."""
    load = workload.load(alone_s)

    def of(replicas: int, admitted: float = 1.0) -> Pool:
        return replace(pool, arrivals_hz=admitted * workload.turns_hz / replicas)

    def refusing(replicas: int, admitted: float = 1.0) -> float:
        slots = of(replicas, admitted).limits(promised)[0].streams
        return erlang_b(load / replicas, slots) if slots else 1.0

    def left_to(replicas: int) -> float:
        """The share refused by fewer than it takes. Turns that are refused cost nothing and leave room for others."""
        low, high = 0.0, 1.0
        while replicas and high - low > 1e-4:
            share = (low + high) / 2
            low, high = (low, share) if refusing(replicas, 1 - share) <= share else (share, high)
        return high

    tightest = pool.limits(promised)[0]
    if tightest.streams < 1:
        raise BadPlan(f"Not one stream keeps the promise: {tightest.what} of {tightest.stage} does not allow it.")
    replicas = fewest(lambda count: refusing(count) <= refused)
    limits = of(replicas).limits(promised)
    lost = min(lost, replicas)
    return PoolPlan(
        of(replicas), limits[0].streams, tuple(limits), replicas, refusing(replicas), lost, left_to(replicas - lost)
    )
