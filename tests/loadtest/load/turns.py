"""Records of turns, for tests."""

from typing import Any

from loadtest.load.records import TurnRecord


def heard(**changed: Any) -> TurnRecord:
    """One that went well."""
    given: dict[str, Any] = {
        "at": 100.0,
        "ended_at": 105.0,
        "door": "realtime",
        "tenant": "a",
        "outcome": "heard",
        "first_audio_s": 0.2,
        "latency_s": 0.8,
        "rtf": 0.3,
        "audio_s": 4.0,
        "gap_s": 0.5,
    }
    return TurnRecord(**{**given, **changed})


def refused(**changed: Any) -> TurnRecord:
    given = {"at": 100.0, "ended_at": 100.1, "door": "http", "tenant": "a", "outcome": "refused", "code": "overloaded"}
    return TurnRecord(**{**given, **changed})
