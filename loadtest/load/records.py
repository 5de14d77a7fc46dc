"""What a load generator writes down. Plain values, so that they survive the way from a worker to the master."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Outcome = Literal["heard", "cut", "hung_up", "refused", "failed"]


@dataclass(frozen=True)
class TurnRecord:
    """One question and its answer. Seconds; at and ended_at on the wall clock, which several generators share."""

    at: float  # the end of the user's speech
    ended_at: float
    door: str
    tenant: str
    outcome: Outcome
    code: str | None = None  # of a refusal or a failure
    slow: bool = False  # read slowly on purpose: its times say nothing of the server
    first_audio_s: float | None = None  # from the commit
    latency_s: float | None = None  # from the end of speech
    rtf: float | None = None
    audio_s: float = 0.0
    underruns: int = 0
    underrun_s: float = 0.0
    gap_s: float | None = None  # longest between two pieces of audio
    silence_s: float | None = None  # from the wish for silence to the last event of the answer
    late_s: float = 0.0  # the latest a piece of the microphone was


@dataclass(frozen=True)
class Pulse:
    """One second of one generator."""

    at: float
    sessions: int
    speaking: int  # sessions that wait for an answer or hear one
    beats: int
    late_beats: int
    worst_s: float  # latest beat


class Ledger:
    """Turns and pulses, in order of arrival. Safe between threads."""

    def __init__(self) -> None:
        self.turns: list[TurnRecord] = []
        self.pulses: dict[str, list[Pulse]] = {}
        self._lock = threading.Lock()

    def turn(self, record: TurnRecord) -> None:
        with self._lock:
            self.turns.append(record)

    def pulse(self, generator: str, pulse: Pulse) -> None:
        with self._lock:
            self.pulses.setdefault(generator, []).append(pulse)

    def drain(self) -> dict[str, Any]:
        """Everything since the last drain, as plain values."""
        with self._lock:
            turns, self.turns = self.turns, []
            pulses, self.pulses = self.pulses, {}
        return {
            "turns": [asdict(record) for record in turns],
            "pulses": {name: [asdict(pulse) for pulse in each] for name, each in pulses.items()},
        }

    def add(self, drained: Mapping[str, Any]) -> None:
        """What another ledger has drained."""
        for values in drained["turns"]:
            self.turn(TurnRecord(**_known(TurnRecord, values)))
        for name, each in drained["pulses"].items():
            for values in each:
                self.pulse(name, Pulse(**_known(Pulse, values)))

    def clear(self) -> None:
        self.drain()


def _known(kind: type[TurnRecord] | type[Pulse], values: Mapping[str, Any]) -> dict[str, Any]:
    """Raises KeyError where a worker of another version sends less."""
    return {field.name: values[field.name] for field in fields(kind)}


def sessions_at(pulses: Mapping[str, Iterable[Pulse]], second: int) -> tuple[int, int]:
    """(sessions, speaking) of all generators in one second of the wall clock."""
    found = [pulse for each in pulses.values() for pulse in each if int(pulse.at) == second]
    return sum(pulse.sessions for pulse in found), sum(pulse.speaking for pulse in found)
