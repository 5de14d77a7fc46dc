"""The README's table: the paper's figures beside ours."""

from collections.abc import Callable

from loadtest.report.cells import Result, engines, markdown, ms, of, where

UNKNOWN = ("not measured yet", "no H200 was at hand")
Row = tuple[str, str, str, str]
FRAME_MS = 80.0


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
    for result in of(results, "stream"):
        first = result["first_audio_s"]
        said = f"{1000 * first['p50']:.0f} ms p50, {1000 * first['p95']:.0f} ms p95"
        said += f"; {result['streamed']} of {result['turns']} turns streamed"
        rows.append(
            (f"first audio, {result['streams']} turns at once over HTTP, tiny weights", "-", said, where(result))
        )
    for result in of(results, "graph"):
        for entry in result.get("hops", []):
            if entry.get("streams") == 100:
                sides = entry["cpu_us_per_item_and_side"]
                said = f"{entry['hop_ms_p50']:.2f} ms p50, {min(sides.values()):.0f}-{max(sides.values()):.0f} us CPU"
                rows.append(("one hop, 4 KB items, 100 streams; CPU per item and side", "-", said, where(result)))
        for run in result.get("real_time", []):
            name = f"listeners without a gap, tiny weights, {run['reasoner']}, {run['placement']} Decoder"
            broke = f", first gap at {run['broke_at']}" if run["broke_at"] else ", no gap seen"
            rows.append((name, "-", f"{run['held_at']}{broke}", where(result)))
    for result in of(results, "echo"):
        for run in result["by_run"]:
            if run["streams"] == 100 and not run["turn_detection"]:
                lists = f"lists of {80 * run['list_frames']} ms"
                down, trip = run["down_ms"], run["round_trip_ms"]
                said = f"{down['p50']:.1f} ms p50, {down['p99']:.1f} p99; there and back {trip['p50']:.1f}, "
                said += f"{trip['p99']:.1f}; {run['cores']:.2f} cores"
                name = f"added by the ingress alone, 100 live streams, {lists}, {run['protocol']}"
                rows.append((name, "-", said, where(result)))
    for result in of(results, "realtime"):
        first, voice, message = result["first_audio_s"], result["interrupted_ms"], result["cancelled_ms"]
        said = f"{result['failed']} failed; first audio {ms(first)}, "
        said += f"silent after a word {voice['p50']:.0f} / {voice['p95']:.0f} ms, "
        said += f"after a cancel {message['p50']:.0f} / {message['p95']:.0f} ms (p50 / p95)"
        name = f"{result['plan']['sessions']} live conversations at once, tiny weights, with turn detection"
        rows.append((name, "-", said, where(result)))
    for result in of(results, "load"):
        capacity, error = result["capacity"], result.get("error")
        said = f"{capacity['held']} held, {capacity['broke']} did not"
        said += f"; the planner said {result['predicted']['callers']}, {error:+.0%}" if error is not None else ""
        rows.append(
            (f"callers in real time over three protocols, tiny weights, {result['slo']}", "-", said, where(result))
        )
    for result in of(results, "quota"):
        worst = max(told["most_at_once"] - told["quota"] for told in result["tenants"])
        said = f"{max(0, worst)} beyond any quota; a killed replica's permits back after {result['lapse_s']:.0f} s"
        name = f"{result['requests']:,} requests on {result['connections']} connections, {result['replicas']} ingresses"
        rows.append((name, "-", said, where(result)))
    for result in of(results, "chaos"):
        runs = result["by_seed"]
        parts = [run["blows"].items() for run in runs]
        blows = sum(count for part in parts for name, count in part if not name.startswith("Listener"))
        turns, failed, resumed = (sum(run[name] for run in runs) for name in ("turns", "failed", "resumed"))
        said = f"{failed} of {turns} turns lost, {resumed} gone on elsewhere, "
        said += f"{sum(run['other_codes'] for run in runs)} with other codes"
        name = (
            f"{blows} processes killed or stopped under {runs[0]['streams']} listeners, {runs[0]['reasoner']} Reasoner"
        )
        rows.append((name, "-", said, where(result)))
    for result in of(results, "multihost"):
        for blow in result["blows"]:
            done = {"drain": "drained", "kill": "killed"}[blow["blow"]]
            said = f"{blow['lost']} of {blow['turns']} turns lost, "
            said += f"{blow['cut_with_their_ingress']} cut with their ingress, {blow['resumed']} gone on elsewhere, "
            said += f"{blow['other_codes']} with other codes"
            rows.append((f"one of two hosts {done} under {result['streams']} streams", "-", said, where(result)))
    for result in of(results, "parity"):  # {"benchmark": "parity", "rows": [["what", "figure"]], "machine": ...}
        rows += [(what, "-", figure, where(result)) for what, figure in result["rows"]]
    return markdown(("", "paper", "ours", "where and when"), rows)


def _pipelines(results: dict[str, Result], gpu: str) -> list[Result]:
    full = [r for r in of(results, "pipeline") if gpu in (r["machine"]["gpu"] or "") and "full" in r["checkpoint"]]
    return [r for r in full if "streams" in r["by_streams"][0]]


def _stepped(results: dict[str, Result], gpu: str, streams: int) -> tuple[str, str]:
    """RTF of a batch where every stage was measured, with Mimi a frame at a time and four at a time."""
    for result, batches in engines(results):
        for entry in batches:
            whole = entry["batch"] == streams and entry["codec_ms"] is not None and entry["reasoner_ms"] is not None
            if whole and gpu in (result["machine"]["gpu"] or ""):
                grouped = entry["rtf"] - (entry["codec_ms"] - entry["codec_group_ms"]) / FRAME_MS
                return f"{entry['rtf']:.3f}; {grouped:.3f} with the codec four frames at a time", where(result)
    return UNKNOWN


def _alone(key: str, form: str, scale: float) -> Callable[[Result], str]:
    """A figure of one stream alone, of a pipeline result."""
    return lambda result: next(
        (form.format(scale * e[key]["p50"]) for e in result["by_streams"] if e["streams"] == 1), UNKNOWN[0]
    )


def _first(found: list[Result], figure: Callable[[Result], str]) -> tuple[str, str]:
    return (figure(found[0]), where(found[0])) if found else UNKNOWN
