"""Tables and plots from loadtest/results/*.json, and the README's "paper | ours" table between its markers.

python -m loadtest.report            write loadtest/results/REPORT.md, the plots, and the README's table
python -m loadtest.report --check    write nothing; exit code 1 when the README or the report is not what they say
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from loadtest import machine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
START, END = "<!-- table:start -->", "<!-- table:end -->"
UNKNOWN = ("not measured yet", "no H200 was at hand")
Result = dict[str, Any]
Row = tuple[str, str, str, str]
FRAME_MS = 80.0


def main() -> int:
    options = _options()
    results = read(options.results)
    readme: Path = options.readme
    wanted = {options.results / "REPORT.md": report(results)}
    if readme.exists():
        wanted[readme] = between(readme.read_text(), table(results))
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if options.check:
        for path in stale:
            print(f"{path} is not what {options.results}/*.json say: run python -m loadtest.report", file=sys.stderr)
        return 1 if stale else 0
    for path, text in wanted.items():
        path.write_text(text)
        print(f"wrote {path}")
    for path in plots(results, options.results):
        print(f"wrote {path}")
    return 0


def read(folder: Path) -> dict[str, Result]:
    """Every result by its file's name below the folder."""
    paths = sorted(folder.rglob("*.json"))
    return {str(path.relative_to(folder).with_suffix("")): json.loads(path.read_text()) for path in paths}


def between(text: str, rows: str) -> str:
    """text with what stands between the markers replaced. Raises ValueError where it has none."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"the README lacks {START} and {END}")
    return f"{before}{START}\n{rows}\n{END}{after}"


def table(results: dict[str, Result]) -> str:
    """The paper's figures beside ours; what nobody measured says so."""
    rows: list[Row] = [
        ("RTF, one stream, H200, step times of all stages added up", "0.43", *_stepped(results, "H200", 1)),
        ("the same, 256 streams", "-", *_stepped(results, "H200", 256)),
        (
            "first audio after commit, H200",
            "147 ms (first token)",
            *_first(_pipelines(results, "H200"), _alone("first_audio_s", "{:.0f} ms", 1000)),
        ),
    ]
    for result in _of(results, "stream"):
        first = result["first_audio_s"]
        said = f"{1000 * first['p50']:.0f} ms p50, {1000 * first['p95']:.0f} ms p95"
        said += f"; {result['streamed']} of {result['turns']} turns streamed"
        rows.append(
            (f"first audio, {result['streams']} turns at once over HTTP, tiny weights", "-", said, _where(result))
        )
    for result in _of(results, "graph"):
        for entry in result.get("hops", []):
            if entry.get("streams") == 100:
                sides = entry["cpu_us_per_item_and_side"]
                said = f"{entry['hop_ms_p50']:.2f} ms p50, {min(sides.values()):.0f}-{max(sides.values()):.0f} us CPU"
                rows.append(("one hop, 4 KB items, 100 streams; CPU per item and side", "-", said, _where(result)))
        for run in result.get("real_time", []):
            name = f"listeners without a gap, tiny weights, {run['reasoner']}, {run['placement']} Decoder"
            broke = f", first gap at {run['broke_at']}" if run["broke_at"] else ", no gap seen"
            rows.append((name, "-", f"{run['held_at']}{broke}", _where(result)))
    for result in _of(results, "echo"):
        for run in result["by_run"]:
            if run["streams"] == 100 and not run["turn_detection"]:
                lists = f"lists of {80 * run['list_frames']} ms"
                down, trip = run["down_ms"], run["round_trip_ms"]
                said = f"{down['p50']:.1f} ms p50, {down['p99']:.1f} p99; there and back {trip['p50']:.1f}, "
                said += f"{trip['p99']:.1f}; {run['cores']:.2f} cores"
                name = f"added by the ingress alone, 100 live streams, {lists}, {run['protocol']}"
                rows.append((name, "-", said, _where(result)))
    for result in _of(results, "realtime"):
        first, voice, message = result["first_audio_s"], result["interrupted_ms"], result["cancelled_ms"]
        said = f"{result['failed']} failed; first audio {_ms(first)}, "
        said += f"silent after a word {voice['p50']:.0f} / {voice['p95']:.0f} ms, "
        said += f"after a cancel {message['p50']:.0f} / {message['p95']:.0f} ms (p50 / p95)"
        name = f"{result['plan']['sessions']} live conversations at once, tiny weights, with turn detection"
        rows.append((name, "-", said, _where(result)))
    for result in _of(results, "quota"):
        worst = max(told["most_at_once"] - told["quota"] for told in result["tenants"])
        said = f"{max(0, worst)} beyond any quota; a killed replica's permits back after {result['lapse_s']:.0f} s"
        name = f"{result['requests']:,} requests on {result['connections']} connections, {result['replicas']} ingresses"
        rows.append((name, "-", said, _where(result)))
    for result in _of(results, "chaos"):
        runs = result["by_seed"]
        parts = [run["blows"].items() for run in runs]
        blows = sum(count for part in parts for name, count in part if not name.startswith("Listener"))
        turns, failed, resumed = (sum(run[name] for run in runs) for name in ("turns", "failed", "resumed"))
        said = f"{failed} of {turns} turns lost, {resumed} gone on elsewhere, "
        said += f"{sum(run['other_codes'] for run in runs)} with other codes"
        name = (
            f"{blows} processes killed or stopped under {runs[0]['streams']} listeners, {runs[0]['reasoner']} Reasoner"
        )
        rows.append((name, "-", said, _where(result)))
    for result in _of(results, "multihost"):
        for blow in result["blows"]:
            done = {"drain": "drained", "kill": "killed"}[blow["blow"]]
            said = f"{blow['lost']} of {blow['turns']} turns lost, "
            said += f"{blow['cut_with_their_ingress']} cut with their ingress, {blow['resumed']} gone on elsewhere, "
            said += f"{blow['other_codes']} with other codes"
            rows.append((f"one of two hosts {done} under {result['streams']} streams", "-", said, _where(result)))
    for result in _of(results, "parity"):  # {"benchmark": "parity", "rows": [["what", "figure"]], "machine": ...}
        rows += [(what, "-", figure, _where(result)) for what, figure in result["rows"]]
    return _markdown(("", "paper", "ours", "where and when"), rows)


def report(results: dict[str, Result]) -> str:
    """All results, one section a file."""
    sections = [
        "# Benchmark results",
        "Made by `python -m loadtest.report` from the JSON files beside it.",
        table(results),
    ]
    for name, result in results.items():
        body = "\n\n".join(_section(result))
        if body:
            sections.append(f"## {name}\n\n{machine.line(result['machine'])}. Load before: {_load(result)}.\n\n{body}")
    return "\n\n".join(sections) + "\n"


def _section(result: Result) -> Iterator[str]:
    for _, batches in _engines({"": result}):
        columns = ("batch", "frame_ms", "backbone_ms", "decoder_ms", "codec_ms", "codec_group_ms", "reasoner_ms", "rtf")
        cells = [[entry.get(name) for name in columns] for entry in batches]
        rows0: list[tuple[str, ...]] = [tuple("-" if x is None else f"{x:.3g}" for x in row) for row in cells]
        yield _markdown(columns, rows0)
    entries = result.get("by_streams", [])
    if entries and "question_s" in entries[0]:
        rows = [(f"{e['question_s']:g} s", _ms(e["first_audio_s"]), _ms(e["first_audio_warm_s"])) for e in entries]
        yield _markdown(("question", "first audio p50 / p95 ms", "read while spoken"), rows)
    elif entries:
        rows5 = [
            (str(e["streams"]), _ms(e["first_audio_s"]), _number(e["rtf"]), str(e["turns_with_underrun"]), _shares(e))
            for e in entries
        ]
        yield _markdown(("streams", "first audio p50 / p95 ms", "RTF p50 / p95", "turns with gaps", "busy"), rows5)
    hops = [e for e in result.get("hops", []) if "streams" in e]
    if hops:
        rows4 = [
            (str(e["streams"]), f"{e['hop_ms_p50']:.2f}", _last_age(e), _named(e["cpu_us_per_item_and_side"]))
            for e in hops
        ]
        yield _markdown(("streams", "hop p50 ms", "all hops p50 / p99 ms", "CPU us per item and side"), rows4)
    for run in result.get("real_time", []):
        rows6 = [
            (
                str(e["listeners"]),
                _ms(e["first_audio_s"]),
                _number(e["rtf"]),
                str(e["turns_with_underrun"]),
                f"{e['cores_used']:.2f}",
                _named(e["cpu_us_per_stream_s"]),
            )
            for e in run["by_listeners"]
        ]
        head = (
            "listeners",
            "first audio p50 / p95 ms",
            "RTF p50 / p95",
            "turns with gaps",
            "cores",
            "us per stream-second",
        )
        yield f"{run['reasoner']} Reasoner, {run['placement']} Decoder:\n\n{_markdown(head, rows6)}"
    if result.get("benchmark") == "echo":
        rows7 = [
            (
                run["protocol"],
                str(run["streams"]),
                str(run["list_frames"]),
                "on" if run["turn_detection"] else "off",
                f"{run['down_ms']['p50']:.2f} / {run['down_ms']['p99']:.2f}",
                f"{run['round_trip_ms']['p50']:.2f} / {run['round_trip_ms']['p99']:.2f}",
                f"{run['cores']:.2f}",
            )
            for run in result["by_run"]
        ]
        head7 = (
            "protocol",
            "streams",
            "frames a list",
            "turn detection",
            "down p50 / p99 ms",
            "round trip p50 / p99 ms",
            "cores",
        )
        yield _markdown(head7, rows7)
    if result.get("benchmark") == "realtime":
        head8 = ("sessions", "failed", "first audio ms", "response latency ms", "with gaps", "silent after a word ms")
        voice, gaps = result["interrupted_ms"], f"{result['turns_with_underrun']} of {result['heard_out']}"
        times = (_ms(result["first_audio_s"]), _ms(result["response_latency_s"]))
        stopped = f"{voice['p50']:.0f} / {voice['p95']:.0f}"
        yield _markdown(head8, [(str(result["plan"]["sessions"]), str(result["failed"]), *times, gaps, stopped)])
    if result.get("benchmark") == "quota":
        rows9 = [(str(t["quota"]), str(t["most_at_once"]), str(t["answers"])) for t in result["tenants"]]
        yield _markdown(("streams of the tenant's quota", "most at once", "answers by status"), rows9)
    if result.get("benchmark") == "chaos":
        names = ("seed", "turns", "failed", "other_codes", "resumed", "underruns", "most_silence_s")
        rows10 = [
            (*(str(run[name]) for name in names), ", ".join(f"{k} {n}" for k, n in run["blows"].items()))
            for run in result["by_seed"]
        ]
        yield _markdown((*names, "blows"), rows10)
    if result.get("benchmark") == "multihost":
        parts = (
            "blow",
            "pod_ended_s",
            "whole_again_s",
            "under_way",
            "through_the_pod",
            "completed",
            "lost",
            "underruns",
        )
        yield _markdown(parts, [tuple(str(blow[part]) for part in parts) for blow in result["blows"]])
    if result.get("benchmark") == "stream":
        rows2 = [(name, _ms(values)) for name, values in result["stages_s"].items()]
        yield _markdown(("stage", "p50 / p95 ms"), [("first audio", _ms(result["first_audio_s"])), *rows2])


def plots(results: dict[str, Result], folder: Path) -> Iterator[Path]:
    """First audio against the number of streams, for every result that has several."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for name, result in results.items():
        lines = {"": [e for e in result.get("by_streams", []) if "streams" in e]}
        lines |= {f"{r['reasoner']}, {r['placement']}": r["by_listeners"] for r in result.get("real_time", [])}
        lines = {label: entries for label, entries in lines.items() if len(entries) > 1}
        if not lines:
            continue
        figure, axes = pyplot.subplots(figsize=(6, 4))
        for label, entries in lines.items():
            x = [e.get("streams", e.get("listeners")) for e in entries]
            for share, style in (("p50", "-"), ("p95", "--")):
                y = [1000 * e["first_audio_s"].get(share, float("nan")) for e in entries]
                axes.plot(x, y, style, marker="o", label=f"{label} {share}".strip())
        axes.set(xlabel="streams", ylabel="first audio, ms", xscale="log", ylim=(0, None), title=name)
        axes.legend()
        figure.savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight", metadata={"Software": None})
        pyplot.close(figure)
        yield folder / f"{name}.png"


def _of(results: dict[str, Result], benchmark: str) -> list[Result]:
    return [result for result in results.values() if result.get("benchmark") == benchmark]


def _pipelines(results: dict[str, Result], gpu: str) -> list[Result]:
    full = [r for r in _of(results, "pipeline") if gpu in (r["machine"]["gpu"] or "") and "full" in r["checkpoint"]]
    return [r for r in full if "streams" in r["by_streams"][0]]


def _engines(results: dict[str, Result]) -> Iterator[tuple[Result, list[Result]]]:
    """Runs of the engine benchmark at full size, and their batches."""
    for result in results.values():
        found = result.get("results")
        if isinstance(found, dict) and found.get("size") == "full":
            yield result, found["batches"]


def _stepped(results: dict[str, Result], gpu: str, streams: int) -> tuple[str, str]:
    """RTF of a batch where every stage was measured, with Mimi a frame at a time and four at a time."""
    for result, batches in _engines(results):
        for entry in batches:
            whole = entry["batch"] == streams and entry["codec_ms"] is not None and entry["reasoner_ms"] is not None
            if whole and gpu in (result["machine"]["gpu"] or ""):
                grouped = entry["rtf"] - (entry["codec_ms"] - entry["codec_group_ms"]) / FRAME_MS
                return f"{entry['rtf']:.3f}; {grouped:.3f} with the codec four frames at a time", _where(result)
    return UNKNOWN


def _alone(key: str, form: str, scale: float) -> Callable[[Result], str]:
    """A figure of one stream alone, of a pipeline result."""
    return lambda result: next(
        (form.format(scale * e[key]["p50"]) for e in result["by_streams"] if e["streams"] == 1), UNKNOWN[0]
    )


def _first(found: list[Result], figure: Callable[[Result], str]) -> tuple[str, str]:
    return (figure(found[0]), _where(found[0])) if found else UNKNOWN


def _where(result: Result) -> str:
    on = result["machine"]
    return f"{on['gpu'] or '{} CPU cores'.format(on['cores'])}, {on['date']}"


def _load(result: Result) -> str:
    return f"{result['load_average']:.1f}" if "load_average" in result else "not noted"


def _ms(values: dict[str, float]) -> str:
    return f"{1000 * values['p50']:.0f} / {1000 * values['p95']:.0f}" if values else "-"


def _number(values: dict[str, float]) -> str:
    return f"{values['p50']:.3f} / {values['p95']:.3f}" if values else "-"


def _shares(entry: Result) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in entry["busy_share"].items())


def _named(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in values.items())


def _last_age(entry: Result) -> str:
    ages = entry["age_ms_after_hops"]
    last = ages[max(ages)]
    return f"{last['p50']:.2f} / {last['p99']:.2f}"


def _markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    body = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body]).replace("|  |", "| |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--check", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
