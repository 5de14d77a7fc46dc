"""What the ingress tells Prometheus of replies as their listeners get them."""

from collections import Counter
from typing import Any, get_args

from ray.serve import metrics

from chroma_models.errors import Overloaded
from deployments.ingress.refusals import Refusals
from deployments.ingress.sanity import FAULTS
from deployments.ingress.usage import Protocol, Record
from deployments.metrics import WAIT_BOUNDS_S, begin_at_zero

GAP_BOUNDS_S = [0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2, 0.24, 0.32, 0.4, 0.64, 1.0, 2.0, 4.0]
RTF_BOUNDS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 5.0]


class ReplyMetrics:
    """Counts responses as they end, and refusals as they are found to have been."""

    def __init__(self) -> None:
        def counter(name: str, about: str, *labels: str) -> Any:
            return metrics.Counter(f"chroma_{name}_total", about, labels)

        def histogram(name: str, about: str, bounds: list[float]) -> Any:
            return metrics.Histogram(f"chroma_{name}", about, bounds, ("protocol",))

        self._responses = counter("responses", "Replies by how they ended.", "protocol", "outcome")
        self._refusals = counter("refusals", "Streams turned away before a reply began.", "protocol", "code")
        self._first = histogram("first_audio_seconds", "From commit to the first audio.", WAIT_BOUNDS_S)
        self._gap = histogram("frame_gap_seconds", "Between two pieces of audio of a live reply.", GAP_BOUNDS_S)
        self._rtf = histogram("reply_rtf_ratio", "Seconds of making over seconds of audio, live.", RTF_BOUNDS)
        self._live = counter("live_replies", "Replies somebody listened to while they were made.", "protocol")
        self._broken = counter("underrun_replies", "Of these, with a moment of nothing to play.", "protocol")
        self._underruns = counter("underruns", "Moments with nothing left to play.", "protocol")
        self._silence = counter("underrun_seconds", "Of these moments.", "protocol")
        self._faulty = counter("faulty_replies", "Replies that do not sound like speech.", "fault")
        self._refused = Counter[tuple[str, str]]()
        for protocol in get_args(Protocol):
            for each in (self._live, self._broken, self._underruns, self._silence):
                begin_at_zero(each, {"protocol": protocol})
            begin_at_zero(self._responses, {"protocol": protocol, "outcome": "completed"})
            begin_at_zero(self._refusals, {"protocol": protocol, "code": Overloaded.code})
        for fault in FAULTS:
            begin_at_zero(self._faulty, {"fault": fault})

    def count(self, record: Record) -> None:
        """Of a response that has ended."""
        protocol = {"protocol": record.protocol}
        self._responses.inc(1, {**protocol, "outcome": record.outcome})
        spoken = record.spoken
        for fault in spoken.sound.faults:
            self._faulty.inc(1, {"fault": fault})
        if not record.live or spoken.first_audio_s is None:
            return
        played = spoken.playback
        self._live.inc(1, protocol)
        self._first.observe(spoken.first_audio_s, protocol)
        for gap_s in played.gaps_s:
            self._gap.observe(gap_s, protocol)
        if (rtf := spoken.rtf) is not None:
            self._rtf.observe(rtf, protocol)
        if played.underruns:
            self._broken.inc(1, protocol)
            self._underruns.inc(played.underruns, protocol)
            self._silence.inc(played.underrun_s, protocol)

    def sample(self, refusals: Refusals) -> None:
        for (protocol, code), count in refusals.counts.items():
            if new := count - self._refused[protocol, code]:
                self._refusals.inc(new, {"protocol": protocol, "code": code})
                self._refused[protocol, code] = count
