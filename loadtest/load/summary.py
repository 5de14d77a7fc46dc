"""What all turns together show: times, shares, errors, tenants, and whether the load generator was fit to tell."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadtest.load.heartbeat import LATE_S, LATE_SHARE
from loadtest.load.records import Pulse, TurnRecord
from loadtest.spread import spread

Pulses = Mapping[str, Sequence[Pulse]]


def summary(turns: Sequence[TurnRecord]) -> dict[str, Any]:
    """Slow readers are counted, but their times are their own and left out."""
    timed = [turn for turn in turns if not turn.slow]
    spoken = [turn for turn in timed if turn.first_audio_s is not None]
    underruns = [turn for turn in spoken if turn.underruns]
    outcomes = Counter(turn.outcome for turn in turns)
    return {
        "turns": len(turns),
        "outcomes": dict(sorted(outcomes.items())),
        "errors": dict(sorted(Counter(f"{turn.outcome}: {turn.code}" for turn in turns if turn.code).items())),
        "slow_readers": len(turns) - len(timed),
        "audio_s": round(sum(turn.audio_s for turn in turns), 2),
        "first_audio_s": _spread(turn.first_audio_s for turn in timed),
        "response_latency_s": _spread(turn.latency_s for turn in timed),
        "rtf": _spread(turn.rtf for turn in timed),
        "frame_gap_s": _spread(turn.gap_s for turn in timed),
        "cancel_to_silence_s": _spread(turn.silence_s for turn in timed),
        "underruns": sum(turn.underruns for turn in spoken),
        "underrun_ms": round(1000 * sum(turn.underrun_s for turn in spoken), 1),
        "shares": {
            "underrun": _share(len(underruns), len(spoken)),
            "refused": _share(outcomes["refused"], len(turns)),
            "failed": _share(outcomes["failed"], len(turns)),
        },
    }


def by(turns: Iterable[TurnRecord], field: str) -> dict[str, dict[str, Any]]:
    """A summary for each door or tenant."""
    groups: dict[str, list[TurnRecord]] = {}
    for turn in turns:
        groups.setdefault(str(getattr(turn, field)), []).append(turn)
    return {name: summary(groups[name]) for name in sorted(groups)}


def jain(shares: Sequence[float]) -> float | None:
    """Jain's index: 1 where all have the same, 1/n where one has everything. None where nobody has anything."""
    squares = sum(share**2 for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else None


def fairness(turns: Iterable[TurnRecord]) -> dict[str, float | None]:
    """Between tenants: of what each asked for, how much was answered; and how soon, as the inverse of first audio."""
    tenants = by(turns, "tenant").values()
    answered = [1 - each["shares"]["refused"] - each["shares"]["failed"] for each in tenants if each["turns"]]
    soon = [1 / each["first_audio_s"]["p50"] for each in tenants if each["first_audio_s"]]
    return {"answered": jain(answered), "first_audio": jain(soon)}


def lag(pulses: Pulses) -> dict[str, Any]:
    """How late the generators were, and whether that voids what they say: late beats are one in a hundred at most."""
    all_pulses = [pulse for each in pulses.values() for pulse in each]
    by_generator = {name: _late(each) for name, each in sorted(pulses.items())}
    worst = max(by_generator.values(), default=0.0)
    return {
        "generators": len(pulses),
        "late_share": _late(all_pulses),
        "late_share_of_the_worst": worst,
        "worst_ms": round(1000 * max((pulse.worst_s for pulse in all_pulses), default=0.0), 1),
        "limit_ms": 1000 * LATE_S,
        "limit_share": LATE_SHARE,
        "void": worst > LATE_SHARE or not all_pulses,
    }


def within(turns: Iterable[TurnRecord], begin: float, end: float) -> list[TurnRecord]:
    """Those asked in a span of the wall clock."""
    return [turn for turn in turns if begin <= turn.at < end]


def speech(turns: Iterable[TurnRecord], begin: float, end: float) -> float:
    """Seconds of answers that were heard in a second of a span of the wall clock, whenever they were asked for."""
    heard_s = 0.0
    for turn in turns:
        if turn.latency_s is not None:
            start = min(turn.at + turn.latency_s, turn.ended_at)
            inside = min(end, turn.ended_at) - max(begin, start)
            if inside > 0:
                heard_s += turn.audio_s * inside / (turn.ended_at - start)
    return heard_s / (end - begin)


def pulses_within(pulses: Pulses, begin: float, end: float) -> dict[str, list[Pulse]]:
    found = {name: [pulse for pulse in each if begin <= pulse.at < end] for name, each in pulses.items()}
    return {name: each for name, each in found.items() if each}


def _late(pulses: Sequence[Pulse]) -> float:
    return round(_share(sum(pulse.late_beats for pulse in pulses), sum(pulse.beats for pulse in pulses)), 5)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _spread(values: Iterable[float | None]) -> dict[str, float]:
    return spread([value for value in values if value is not None])
