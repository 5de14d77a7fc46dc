"""A run of the load test as a whole: what was wanted, what came of it, and what is told at the end."""

import json
import re
import time
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from loadtest import machine
from loadtest.load.options import Options
from loadtest.load.page import page
from loadtest.load.profile import Stairs
from loadtest.load.records import Ledger, Pulse, TurnRecord
from loadtest.load.summary import by, fairness, lag, pulses_within, speech, summary, within
from loadtest.slo import Slo

KEEP = ("arrivals", "seconds", "mix", "turns", "think_s", "reply_s", "barge_in", "cancel", "hang_up", "slow", "seed")
SLOTS_S = 20.0  # that a server gets to take back its slots


class Run:
    def __init__(self, given: Namespace, ledger: Ledger) -> None:
        self._given, self._ledger = given, ledger
        self.started_at = self.ended_at = time.time()
        self.stairs: Stairs | None = None
        self._wanted: list[tuple[float, int]] = []

    def start(self, options: Options) -> None:
        self._options, self.started_at = options, time.time()

    def clear(self) -> None:
        """Another run begins."""
        self.stairs, self._wanted = None, []

    def wanted(self, users: int) -> None:
        if not self._wanted or self._wanted[-1][1] != users:
            self._wanted.append((time.time(), users))

    def result(self) -> dict[str, Any]:
        """Everything, as it is written to a file."""
        turns, pulses = self._ledger.turns, self._ledger.pulses
        whole = summary(turns)
        slo: Slo = self._options.slo
        told = lag(pulses)
        result: dict[str, Any] = {
            "benchmark": "load",
            "machine": machine.machine(),
            "options": {name: getattr(self._given, name) for name in KEEP},
            "users": self._given.num_users,
            "slo": str(slo),
            "began_at": round(self.started_at, 3),
            "void": told["void"],
            "broken": slo.broken(whole),
            "summary": whole,
            "by_door": by(turns, "door"),
            "by_tenant": by(turns, "tenant"),
            "fairness": fairness(turns),
            "lag": told,
            "slots_left": self.slots_left(),
            "wanted": [[round(at - self.started_at, 1), users] for at, users in self._wanted],
        }
        if self.stairs is not None:
            result["levels"] = [
                asdict(level)
                | {"speech": round(speech(turns, level.begin, level.end), 3)}
                | _level(within(turns, level.begin, level.end), pulses_within(pulses, level.begin, level.end))
                for level in self.stairs.levels
            ]
            result["held"], result["broke"] = self.stairs.held, self.stairs.broke
            result["broken"] = []  # it is meant to break
        return result

    def slots_left(self) -> dict[str, float] | None:
        """Slots by stage that are still held when all callers have gone; None where nobody said where to look."""
        if not self._given.metrics:
            return None
        ends_at = time.monotonic() + SLOTS_S
        while True:
            held = slots_held([httpx.get(url, timeout=5.0).text for url in self._given.metrics.split(",")])
            if not any(held.values()) or time.monotonic() > ends_at:
                return held
            time.sleep(1.0)

    def page(self) -> str:
        return page(self.result(), self._ledger, self.started_at)

    def finish(self, void: int) -> int:
        """Writes and prints. Returns the exit code."""
        if not self._ledger.pulses:
            print("The load test has not run.")
            return 0
        result = self.result()
        if self._given.record:
            turns = [asdict(turn) for turn in self._ledger.turns]
            Path(self._given.record).write_text(json.dumps({**result, "records": turns}, indent=1) + "\n")
        if self._given.page:
            Path(self._given.page).write_text(page(result, self._ledger, self.started_at), encoding="utf-8")
        for line in told(result):
            print(line)
        if result["void"]:
            return void
        left = any((result["slots_left"] or {}).values())
        return 1 if result["broken"] or left else 0


def _level(turns: list[TurnRecord], pulses: dict[str, list[Pulse]]) -> dict[str, Any]:
    first = [turn.first_audio_s for turn in turns if turn.first_audio_s is not None and not turn.slow]
    mean_s = sum(first) / len(first) if first else None
    return {"summary": summary(turns), "lag": lag(pulses), "first_audio_mean_s": mean_s}


def slots_held(pages: list[str]) -> dict[str, float]:
    """chroma_slots_held by stage, of all replicas on all pages."""
    held: dict[str, float] = {}
    for line in "\n".join(pages).splitlines():
        found = re.match(r'\w*chroma_slots_held\{.*?stage="(\w+)".*?\} (\S+)', line)
        if found:
            held[found[1]] = held.get(found[1], 0.0) + float(found[2])
    return held


def told(result: dict[str, Any]) -> list[str]:
    """A result in lines."""
    whole, late = result["summary"], result["lag"]
    lines = [
        f"turns              {whole['turns']}: " + ", ".join(f"{n} {name}" for name, n in whole["outcomes"].items()),
    ]
    names = ("first_audio_s", "response_latency_s", "frame_gap_s", "cancel_to_silence_s")
    for name in names:
        if values := whole[name]:
            shown = ", ".join(f"{key} {1000 * values[key]:.0f}" for key in ("p50", "p95", "p99", "max"))
            lines.append(f"{name.removesuffix('_s').replace('_', ' '):18s} {shown} ms")
    if whole["rtf"]:
        lines.append(f"RTF                p50 {whole['rtf']['p50']:.3f}, p95 {whole['rtf']['p95']:.3f}")
    share = whole["shares"]
    lines.append(
        f"underruns          {whole['underruns']}, {whole['underrun_ms']:.0f} ms, in {share['underrun']:.2%} of turns"
    )
    lines.append(f"refused, failed    {share['refused']:.2%}, {share['failed']:.2%}")
    lines += [f"  {count:5d} {name}" for name, count in whole["errors"].items()]
    fair = result["fairness"]
    if len(result["by_tenant"]) > 1:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in fair.items() if value is not None)
        lines.append(f"fairness (Jain)    {shown}, between {len(result['by_tenant'])} tenants")
    if result["slots_left"] is not None:
        lines.append(f"slots left         {result['slots_left'] or 'none told'}")
    lines.append(
        f"generators         {late['generators']}, {late['late_share_of_the_worst']:.2%} of beats over "
        f"{late['limit_ms']:.0f} ms late (the worst {late['worst_ms']:.0f})"
    )
    for level in result.get("levels", []):
        lines.append(f"level              {level_line(level)}")
    if result["void"]:
        lines.append("VOID: the load generator was late itself; what it measured says nothing. Give it a machine.")
    elif result["broken"]:
        lines += [f"BROKEN: {words}" for words in result["broken"]]
    else:
        lines.append(f"held: {result['slo']}" if "levels" not in result else f"held at {result['held']} callers")
    return lines


def level_line(level: dict[str, Any]) -> str:
    first = level["summary"]["first_audio_s"]
    shown = f"first audio p95 {1000 * first['p95']:.0f} ms, " if first else ""
    verdict = "; ".join(level["broken"]) or "held"
    late = ", generator late" if level["lag"]["void"] else ""
    return f"{level['users']:4d} callers: {shown}{level['summary']['turns']} turns{late}; {verdict}"
