"""The HTML report: one file that needs nothing else, its plots inside as SVG."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from loadtest import machine
from loadtest.load.records import Ledger, TurnRecord
from loadtest.slo import Slo
from loadtest.spread import percentile

WINDOW_S = 10.0  # of the plots over time
INK = {"p50": "#2a6f97", "p95": "#c1121f", "other": "#6c757d", "third": "#588157"}

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
COLUMNS = ("turns", "first audio", "response latency", "frame gap", "cancel to silence", "RTF p95", "with underruns",
           "refused", "failed")  # fmt: skip


def page(result: dict[str, Any], ledger: Ledger, began_at: float) -> str:
    groups = [("all", result["summary"]), *result["by_door"].items(), *result["by_tenant"].items()]
    return TEMPLATES.get_template("report.html").render(
        result=result,
        where=machine.line(result["machine"]),
        columns=COLUMNS,
        rows=[(name, *_row(each)) for name, each in groups],
        plots=_plots(ledger, began_at, Slo.read(result["slo"])),
    )


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    def times(name: str) -> str:
        values = each[name]
        return " / ".join(f"{1000 * values[key]:.0f}" for key in ("p50", "p95", "p99")) if values else "-"

    names = ("first_audio_s", "response_latency_s", "frame_gap_s", "cancel_to_silence_s")
    shares = [f"{100 * each['shares'][name]:.2f}%" for name in ("underrun", "refused", "failed")]
    rtf = f"{each['rtf']['p95']:.3f}" if each["rtf"] else "-"
    return (str(each["turns"]), *map(times, names), rtf, *shares)


def _plots(ledger: Ledger, began_at: float, slo: Slo) -> list[str]:
    """As SVG."""
    if not ledger.turns:
        return []
    timed = sorted((turn for turn in ledger.turns if not turn.slow), key=lambda turn: turn.at)
    return [
        drawn("callers and answers over time", lambda axes: _callers(axes, ledger, began_at)),
        drawn("first audio and response latency over time, ms", lambda axes: _times(axes, timed, began_at, slo)),
        drawn("share of turns with first audio within, ms", lambda axes: _within(axes, timed)),
        drawn("per cent of turns", lambda axes: _shares(axes, ledger.turns, began_at)),
        drawn("the generator's latest beat, ms", lambda axes: _late(axes, ledger, began_at)),
    ]


def drawn(title: str, draw: Callable[[Any], None]) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 2.8))
    draw(axes)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    file = io.StringIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return file.getvalue()[file.getvalue().index("<svg") :]


def _callers(axes: Any, ledger: Ledger, began_at: float) -> None:
    sessions: dict[int, int] = {}
    speaking: dict[int, int] = {}
    for each in ledger.pulses.values():
        for pulse in each:
            second = int(pulse.at - began_at)
            sessions[second] = sessions.get(second, 0) + pulse.sessions
            speaking[second] = speaking.get(second, 0) + pulse.speaking
    for counted, label, ink in ((sessions, "callers", "other"), (speaking, "asking or listening", "p50")):
        axes.step(sorted(counted), [counted[second] for second in sorted(counted)], label=label, color=INK[ink])
    axes.set(xlabel="s", ylim=(0, None))


def _times(axes: Any, turns: Sequence[TurnRecord], began_at: float, slo: Slo) -> None:
    lines = (("first_audio_s", 0.5, "p50"), ("first_audio_s", 0.95, "p95"), ("latency_s", 0.95, "third"))
    for name, share, ink in lines:
        points = [
            (second, 1000 * percentile(values, share))
            for second, group in _windows(turns, began_at)
            if (values := [value for turn in group if (value := getattr(turn, name)) is not None])
        ]
        label = f"{'first audio' if name == 'first_audio_s' else 'response latency'} p{100 * share:.0f}"
        axes.plot(*zip(*points, strict=True), marker=".", label=label, color=INK[ink]) if points else None
    promise = slo.find("first_audio")
    if promise is not None:
        axes.axhline(1000 * promise.most, color=INK["p95"], linestyle=":", label=str(promise))
    axes.set(xlabel="s", ylim=(0, None))


def _within(axes: Any, turns: Sequence[TurnRecord]) -> None:
    for name, label, ink in (("first_audio_s", "first audio", "p50"), ("latency_s", "response latency", "third")):
        values = sorted(1000 * value for turn in turns if (value := getattr(turn, name)) is not None)
        axes.step(values, [100 * (i + 1) / len(values) for i in range(len(values))], label=label, color=INK[ink])
    axes.set(xlabel="ms", ylim=(0, 101))


def _shares(axes: Any, turns: Sequence[TurnRecord], began_at: float) -> None:
    windows = _windows(sorted(turns, key=lambda turn: turn.at), began_at)
    told: tuple[tuple[str, str, Callable[[TurnRecord], bool]], ...] = (
        ("with underruns", "p95", lambda turn: turn.underruns > 0),
        ("refused", "other", lambda turn: turn.outcome == "refused"),
        ("failed", "third", lambda turn: turn.outcome == "failed"),
    )
    for label, ink, wrong in told:
        points = [(second, 100 * sum(map(wrong, group)) / len(group)) for second, group in windows]
        axes.plot(*zip(*points, strict=True), marker=".", label=label, color=INK[ink])
    axes.set(xlabel="s", ylim=(0, None))


def _late(axes: Any, ledger: Ledger, began_at: float) -> None:
    for name, each in sorted(ledger.pulses.items()):
        label = name if len(ledger.pulses) > 1 else None
        axes.plot([p.at - began_at for p in each], [1000 * p.worst_s for p in each], label=label, linewidth=0.8)
    axes.set(xlabel="s", ylim=(0, None))


def _windows(turns: Sequence[TurnRecord], began_at: float) -> list[tuple[float, list[TurnRecord]]]:
    """Turns by the middle of the window they were asked in."""
    groups: dict[int, list[TurnRecord]] = {}
    for turn in turns:
        groups.setdefault(int((turn.at - began_at) // WINDOW_S), []).append(turn)
    return [((number + 0.5) * WINDOW_S, groups[number]) for number in sorted(groups)]
