"""One section for each result: its own figures, by what was varied."""

from collections.abc import Iterator

from loadtest import machine
from loadtest.report.cells import Result, engines, markdown, ms, number
from loadtest.report.comparison import table
from loadtest.usage import OTHERS


def report(results: dict[str, Result]) -> str:
    """All results, one section a file."""
    sections = [
        "# Benchmark results",
        "Made by `python -m loadtest.report` from the JSON files beside it.",
        table(results),
    ]
    for name, result in results.items():
        body = "\n\n".join(section(result))
        if body:
            sections.append(f"## {name}\n\n{machine.line(result['machine'])}. Load before: {load(result)}.\n\n{body}")
    return "\n\n".join(sections) + "\n"


def section(result: Result) -> Iterator[str]:
    for _, batches in engines({"": result}):
        columns = ("batch", "frame_ms", "backbone_ms", "decoder_ms", "codec_ms", "codec_group_ms", "reasoner_ms", "rtf")
        cells = [[entry.get(name) for name in columns] for entry in batches]
        rows0: list[tuple[str, ...]] = [tuple("-" if x is None else f"{x:.3g}" for x in row) for row in cells]
        yield markdown(columns, rows0)
    entries = result.get("by_streams", [])
    if entries and "question_s" in entries[0]:
        rows = [(f"{e['question_s']:g} s", ms(e["first_audio_s"]), ms(e["first_audio_warm_s"])) for e in entries]
        yield markdown(("question", "first audio p50 / p95 ms", "read while spoken"), rows)
    elif entries:
        rows5 = [
            (str(e["streams"]), ms(e["first_audio_s"]), number(e["rtf"]), str(e["turns_with_underrun"]), _shares(e))
            for e in entries
        ]
        yield markdown(("streams", "first audio p50 / p95 ms", "RTF p50 / p95", "turns with gaps", "busy"), rows5)
    hops = [e for e in result.get("hops", []) if "streams" in e]
    if hops:
        rows4 = [
            (str(e["streams"]), f"{e['hop_ms_p50']:.2f}", _last_age(e), _named(e["cpu_us_per_item_and_side"]))
            for e in hops
        ]
        yield markdown(("streams", "hop p50 ms", "all hops p50 / p99 ms", "CPU us per item and side"), rows4)
    for run in result.get("real_time", []):
        rows6 = [
            (
                str(e["listeners"]),
                ms(e["first_audio_s"]),
                number(e["rtf"]),
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
        yield f"{run['reasoner']} Reasoner, {run['placement']} Decoder:\n\n{markdown(head, rows6)}"
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
        yield markdown(head7, rows7)
    if result.get("benchmark") == "realtime":
        head8 = ("sessions", "failed", "first audio ms", "response latency ms", "with gaps", "silent after a word ms")
        voice, gaps = result["interrupted_ms"], f"{result['turns_with_underrun']} of {result['heard_out']}"
        times = (ms(result["first_audio_s"]), ms(result["response_latency_s"]))
        stopped = f"{voice['p50']:.0f} / {voice['p95']:.0f}"
        yield markdown(head8, [(str(result["plan"]["sessions"]), str(result["failed"]), *times, gaps, stopped)])
    if result.get("benchmark") == "load":
        rows11 = [
            (
                str(level["users"]),
                ms(level["summary"]["first_audio_s"]),
                number(level["summary"]["rtf"]),
                f"{level['summary']['shares']['underrun']:.1%}",
                f"{level['summary']['shares']['refused']:.1%}",
                f"{sum(used for name, used in level['cores'].items() if name != OTHERS):.2f}",
            )
            for level in sorted(result["levels"], key=lambda level: int(level["users"]))
        ]
        head11 = ("callers", "first audio p50 / p95 ms", "RTF p50 / p95", "turns with gaps", "refused", "cores")
        yield markdown(head11, rows11)
    if result.get("benchmark") == "quota":
        rows9 = [(str(t["quota"]), str(t["most_at_once"]), str(t["answers"])) for t in result["tenants"]]
        yield markdown(("streams of the tenant's quota", "most at once", "answers by status"), rows9)
    if result.get("benchmark") == "chaos":
        names = ("seed", "turns", "failed", "other_codes", "resumed", "underruns", "most_silence_s")
        rows10 = [
            (*(str(run[name]) for name in names), ", ".join(f"{k} {n}" for k, n in run["blows"].items()))
            for run in result["by_seed"]
        ]
        yield markdown((*names, "blows"), rows10)
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
        yield markdown(parts, [tuple(str(blow[part]) for part in parts) for blow in result["blows"]])
    if result.get("benchmark") == "stream":
        rows2 = [(name, ms(values)) for name, values in result["stages_s"].items()]
        yield markdown(("stage", "p50 / p95 ms"), [("first audio", ms(result["first_audio_s"])), *rows2])


def load(result: Result) -> str:
    return f"{result['load_average']:.1f}" if "load_average" in result else "not noted"


def _shares(entry: Result) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in entry["busy_share"].items())


def _named(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in values.items())


def _last_age(entry: Result) -> str:
    ages = entry["age_ms_after_hops"]
    last = ages[max(ages)]
    return f"{last['p50']:.2f} / {last['p99']:.2f}"
