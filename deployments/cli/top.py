"""A live view of a running graph: streams, slots, step times and RTF of each stage, and what listeners get."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chroma_models.errors import ChromaError, InvalidRequest
from deployments.cli.readings import Change, read

STAGES = ("ingress", "codec", "backbone", "decoder", "reasoner")
COLUMNS = ("stage", "replicas", "streams", "slots", "wait p95", "steps/s", "step p50", "step p95", "rows/step", "RTF")
FULL, NEARLY = 0.9, 0.7  # of the slots
FRAME_S = 0.08


def top(metrics: Sequence[str], url: str, application: str, interval_s: float, once: bool) -> None:
    """Until Ctrl-C; with once, a single view over interval_s. Raises InvalidRequest, StageUnavailable."""
    console = Console()
    with suppress(KeyboardInterrupt):
        asyncio.run(_top(console, metrics, url, application, interval_s, once))


async def _top(
    console: Console, metrics: Sequence[str], url: str, application: str, interval_s: float, once: bool
) -> None:
    before = await read(metrics)
    if not before.values("turns_running", "stage", application=application):
        there = ", ".join(sorted(before.values("turns_running", "application"))) or "none"
        raise InvalidRequest(f"There is no application {application} in these metrics; there is {there}.")
    if once:
        await asyncio.sleep(interval_s)
        after = await read(metrics)
        console.print(view(Change(before, after), await _readiness(url), application))
        return
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(interval_s)
            try:
                after = await read(metrics)
            except ChromaError as error:  # it may come back
                live.update(Text(str(error), style="bold red"), refresh=True)
                continue
            live.update(view(Change(before, after), await _readiness(url), application), refresh=True)
            before = after


async def _readiness(url: str) -> dict[str, Any]:
    """What /readyz says; where nobody answers, that."""
    try:
        async with httpx.AsyncClient(timeout=2.0, verify=False) as client:  # its certificate may name another address
            told: dict[str, Any] = (await client.get(f"{url}/readyz")).json()
            return told
    except (httpx.TransportError, httpx.InvalidURL, ValueError):
        return {"status": "not answering"}


def view(change: Change, readiness: dict[str, Any], application: str) -> Group:
    """The whole screen. Rates and quantiles are those between the two readings."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    for stage in STAGES:
        if change.after.values("turns_running", "stage", application=application, stage=stage):
            table.add_row(*_row(change, application=application, stage=stage))
    return Group(*_listeners(change, readiness, application), Text(), table)


def _row(change: Change, **of: str) -> list[Text]:
    now, is_engine = change.after, of["stage"] != "ingress"
    held, most = now.sum("slots_held", **of), now.sum("slots", **of)
    full = held / most if most else 0.0
    step_s = change.quantile(0.95, "step_seconds", **of)
    if is_engine:  # what its work costs, shared by all in its batches; of the ingress: what a listener sees of all
        rtf = change.ratio("busy_seconds_total", "audio_seconds_total", **of)
    else:
        rtf = change.quantile(0.5, "reply_rtf_ratio", application=of["application"])
    is_late = of["stage"] == "backbone" and step_s is not None and step_s > FRAME_S
    return [
        Text(of["stage"], style="bold"),
        Text(str(len(now.values("turns_running", "replica", **of)))),
        Text(f"{now.sum('turns_running', **of):.0f}"),
        Text(f"{held:.0f}/{most:.0f}" if most else "-", "red" if full > FULL else "yellow" if full > NEARLY else ""),
        _ms(change.quantile(0.95, "admit_wait_seconds", **of)),
        Text(f"{change.rate('steps_total', **of):.1f}" if is_engine else "-"),
        _ms(change.quantile(0.5, "step_seconds", **of)),
        _ms(step_s, "red" if is_late else ""),
        _number(change.ratio("rows_total", "steps_total", **of), 1),
        _number(rtf, 3),
    ]


def _listeners(change: Change, readiness: dict[str, Any], application: str) -> list[Text]:
    of = {"application": application}
    probe = readiness.get("probe")
    probed = "" if probe is None else f", probe {probe['outcome']} {probe['ago_s']:.0f} s ago"
    first = [change.quantile(q, "first_audio_seconds", **of) for q in (0.5, 0.95)]
    broken = change.ratio("underrun_replies_total", "live_replies_total", **of)
    refused, faulty = change.grown("refusals_total", **of), change.grown("faulty_replies_total", **of)
    spoken = change.rate("audio_seconds_total", stage="ingress", **of)
    return [
        Text(
            f"{application} is {readiness['status']}{probed}", style="bold" if readiness["status"] == "ready" else "red"
        ),
        Text(f"replies {change.rate('responses_total', **of):.2f}/s, {spoken:.2f} s of speech a second"),
        Text.assemble("first audio p50 ", _ms(first[0]), ", p95 ", _ms(first[1])),
        Text(
            f"with a gap {'-' if broken is None else f'{100 * broken:.1f} %'}, turned away {refused:.0f}, "
            f"not like speech {faulty:.0f}, in {change.after.at - change.before.at:.0f} s"
        ),
    ]


def _ms(seconds: float | None, style: str = "") -> Text:
    return Text("-" if seconds is None else f"{1000 * seconds:.1f} ms", style=style)


def _number(value: float | None, digits: int) -> Text:
    return Text("-" if value is None else f"{value:.{digits}f}")
