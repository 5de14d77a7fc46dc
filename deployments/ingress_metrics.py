"""What an ingress replica tells Prometheus: its place in the graph, replies, refusals, tenants, and its own probe."""

import asyncio
from typing import Any

from ray.serve import metrics

from deployments.ingress.health import Probed
from deployments.ingress.probe import OK, Probe
from deployments.ingress.reply_log import tell
from deployments.ingress.services import Services
from deployments.ingress.usage import Record
from deployments.metrics import PERIOD_S, begin_at_zero
from deployments.reply_metrics import ReplyMetrics
from deployments.tenant_metrics import TenantMetrics


class IngressMetrics:
    """Hears of responses as they end; start() adds what is looked at from time to time."""

    def __init__(self, services: Services, placement: str) -> None:
        self._services = services
        self._tags = {"stage": "ingress", "placement": placement}
        self._replies, self._tenants = ReplyMetrics(), TenantMetrics(services.config.metric_tenants)
        labels = ("stage", "placement")
        self._held = metrics.Gauge("chroma_slots_held", "By turns, now.", labels)
        self._most = metrics.Gauge("chroma_slots", "That new turns may hold.", labels)
        self._running = metrics.Gauge("chroma_turns_running", "Streams that are open.", labels)
        self._audio = metrics.Counter("chroma_audio_seconds_total", "Since the replica began.", labels)
        self._probes = metrics.Counter("chroma_probes_total", "Turns of our own by how they ended.", ("outcome",))
        self._probe_ok = metrics.Gauge("chroma_probe_ok", "1 where the last turn of our own brought audio, else 0.")
        self._probe_first = metrics.Gauge("chroma_probe_first_audio_seconds", "Of the last one that brought audio.")
        self._tasks = set[asyncio.Task[Any]]()

    def ended(self, record: Record) -> None:
        self._replies.count(record)
        self._tenants.count(record)
        if record.spoken.frames:
            self._audio.inc(record.spoken.audio_s, self._tags)
        tell(record)

    def start(self) -> None:
        self._tasks.add(asyncio.create_task(self._run(), name="metrics-ingress"))
        if self._services.config.probe_interval_s:
            begin_at_zero(self._probes, {"outcome": OK})
            self._tasks.add(asyncio.create_task(Probe(self._services, self.probed).run(), name="probe"))

    def probed(self, probed: Probed) -> None:
        self._probes.inc(1, {"outcome": probed.outcome})
        self._probe_ok.set(int(probed.outcome == OK))
        if probed.first_audio_s is not None:
            self._probe_first.set(probed.first_audio_s)

    async def _run(self) -> None:
        services = self._services
        while True:
            self._held.set(services.running, self._tags)
            self._most.set(services.config.max_concurrent, self._tags)
            self._running.set(services.health.live, self._tags)
            self._replies.sample(services.refusals)
            await asyncio.sleep(PERIOD_S)
