"""What a service promises, as one writes it: first_audio_p95=300ms,underrun=0.1%"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

QUANTILES = ("first_audio", "response_latency", "rtf", "frame_gap", "cancel_to_silence")
SHARES = ("underrun", "refused", "failed")
UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "%": 1e-2}


class BadPromise(ValueError):
    """A promise that cannot be read; the message says what to write instead."""


@dataclass(frozen=True)
class Promise:
    """name: one of QUANTILES with its share of turns, or of SHARES. most: seconds, or a share of turns (0..1)."""

    name: str
    share: float | None
    most: float

    def __str__(self) -> str:
        if self.share is None:
            return f"{self.name}={100 * self.most:g}%"
        most = f"{self.most:g}" if self.name == "rtf" else f"{1000 * self.most:g}ms"
        return f"{self.name}_p{100 * self.share:g}={most}"


@dataclass(frozen=True)
class Slo:
    promises: tuple[Promise, ...]

    @classmethod
    def read(cls, text: str) -> "Slo":
        """Raises BadPromise."""
        slo = cls(tuple(_promise(part.strip()) for part in text.split(",") if part.strip()))
        if not slo.promises:
            raise BadPromise("An SLO needs a promise at least: write first_audio_p95=300ms,underrun=0.1%.")
        return slo

    def find(self, name: str) -> Promise | None:
        return next((promise for promise in self.promises if promise.name == name), None)

    def broken(self, summary: Mapping[str, Any]) -> list[str]:
        """What a summary (loadtest.load.summary) shows to be broken, in words; nothing heard is a broken promise."""
        return [words for promise in self.promises if (words := _broken(promise, summary))]

    def __str__(self) -> str:
        return ",".join(map(str, self.promises))


def seen(promise: Promise, summary: Mapping[str, Any]) -> float | None:
    """The figure a promise is about. None where nothing was measured."""
    if promise.share is None:
        share: float | None = summary["shares"].get(promise.name)
        return share
    unit = "" if promise.name == "rtf" else "_s"
    value: float | None = summary[f"{promise.name}{unit}"].get(f"p{100 * promise.share:g}")
    return value


def _broken(promise: Promise, summary: Mapping[str, Any]) -> str | None:
    value = seen(promise, summary)
    if value is None:
        return f"{promise}: nothing was measured"
    if value <= promise.most:
        return None
    shown = f"{value:.1%}" if promise.share is None else f"{value:.3f}{'' if promise.name == 'rtf' else ' s'}"
    return f"{promise}: {shown}"


def _promise(text: str) -> Promise:
    form = re.fullmatch(r"([a-z_]+?)(?:_p(50|95|99))?=(\d+(?:\.\d+)?)(ms|s|%|)", text)
    known = ", ".join([*(f"{name}_p95" for name in QUANTILES), *SHARES])
    if form is None or form[1] not in (*QUANTILES, *SHARES) or (form[1] in QUANTILES) != (form[2] is not None):
        raise BadPromise(f"{text!r} is no promise: write NAME=LIMIT with one of {known} (or _p50, _p99).")
    name, quantile, number, unit = form.groups()
    wanted = ("%",) if name in SHARES else ("",) if name == "rtf" else ("ms", "s")
    if unit not in wanted:
        raise BadPromise(
            f"{text!r}: {name} is limited in {' or '.join(wanted) if wanted != ('',) else 'a plain number'}."
        )
    most = float(number) * UNITS[unit]
    if (most <= 0 and name not in SHARES) or (name in SHARES and most > 1):
        raise BadPromise(f"{text!r}: the limit must be above 0, and a share no more than 100%.")
    return Promise(name, None if quantile is None else int(quantile) / 100, most)
