"""Write Grafana's dashboards: make dashboards

Two pages, in the order in which one looks when somebody complains: what listeners get, then which stage is to blame.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.builders.common import GraphThresholdsStyleConfig
from grafana_foundation_sdk.builders.common import VizLegendOptions as Legend
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphThresholdsStyleMode
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

FOLDER = Path(__file__).resolve().parent.parent / "k8s" / "monitoring" / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
MINE = 'application=~"$application"'
WIDTH, HEIGHT, COLUMNS = 8, 8, 3
FRAME_S = 0.08


def rate(name: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate(ray_chroma_{name}{{{MINE}{more}}}[$__rate_interval]))"


def quantile(q: float, name: str, by: str = "", more: str = "") -> str:
    labels = ", ".join(label for label in ("le", by) if label)
    return f"histogram_quantile({q:g}, {rate(f'{name}_bucket', labels, more)})"


def gauge(name: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (ray_chroma_{name}{{{MINE}{more}}})"


def panel(title: str, about: str, unit: str, *lines: tuple[str, str], limit: float | None = None) -> timeseries.Panel:
    """lines: a query and what its series are called. limit: a red line."""
    made = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .unit(unit)
        .datasource(SOURCE)
        .min(0)
        .line_width(2)
        .fill_opacity(5)
        .legend(Legend().show_legend(True).calcs(["lastNotNull", "max"]))
    )
    for letter, (query, legend) in zip("ABCDEF", lines, strict=False):
        made = made.with_target(prometheus.Dataquery().ref_id(letter).expr(query).legend_format(legend).range())
    if limit is not None:
        steps = [Threshold(value=None, color="green"), Threshold(value=limit, color="red")]
        made = made.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        made = made.thresholds_style(GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.LINE))
    return made


def quantiles(name: str, by: str = "", more: str = "") -> list[tuple[str, str]]:
    label = f" {{{{{by}}}}}" if by else ""
    return [(quantile(q, name, by, more), f"p{q * 100:g}{label}") for q in (0.5, 0.95, 0.99)]


def listeners() -> Iterator[timeseries.Panel]:
    live = rate("live_replies_total", "protocol")
    yield panel("Replies", "By how they ended.", "reqps", (rate("responses_total", "outcome"), "{{outcome}}"))
    yield panel(
        "First audio",
        "From commit, or the request, to the first audio; 300 ms at p95 are promised.",
        "s",
        *quantiles("first_audio_seconds"),
        limit=0.3,
    )
    yield panel(
        "Replies with a gap",
        "Share that had a moment of nothing to play; one in a thousand is promised.",
        "percentunit",
        (f"{rate('underrun_replies_total', 'protocol')} / ({live} > 0)", "{{protocol}}"),
        limit=0.001,
    )
    yield panel("Turned away", "Before a reply began.", "reqps", (rate("refusals_total", "code"), "{{code}}"))
    yield panel(
        "Silence in gaps",
        "Seconds of nothing to play, for each second.",
        "s",
        (rate("underrun_seconds_total", "protocol"), "{{protocol}}"),
    )
    yield panel(
        "Between two pieces of audio",
        "Pieces grow with the lead: up to four frames, 320 ms, are no gap.",
        "s",
        *quantiles("frame_gap_seconds"),
    )
    yield panel(
        "Made faster than spoken",
        "Seconds of making over seconds of audio, of each live reply; from 1 on listeners wait.",
        "none",
        *quantiles("reply_rtf_ratio"),
        limit=1.0,
    )
    yield panel(
        "Speech",
        "Seconds spoken in a second.",
        "s",
        (rate("audio_seconds_total", "stage", ',stage="ingress"'), "spoken"),
    )
    yield panel(
        "Does not sound like speech",
        "Replies with long silence, flat tops, or frames over and over.",
        "reqps",
        (rate("faulty_replies_total", "fault"), "{{fault}}"),
    )
    yield panel(
        "Probe",
        "The last turn of each replica's own: 1 where it brought audio.",
        "none",
        (f"min by (replica) (ray_chroma_probe_ok{{{MINE}}})", "{{replica}}"),
    )
    yield panel(
        "Probe's first audio",
        "Of the last one that brought audio.",
        "s",
        (f"max by (replica) (ray_chroma_probe_first_audio_seconds{{{MINE}}})", "{{replica}}"),
        limit=0.3,
    )
    yield panel(
        "Spoken to tenants", "Seconds in a second.", "s", (rate("tenant_spoken_seconds_total", "tenant"), "{{tenant}}")
    )


def stages() -> Iterator[timeseries.Panel]:
    yield panel("Streams", "Open in each stage.", "none", (gauge("turns_running", "stage"), "{{stage}}"))
    yield panel(
        "Slots held",
        "Share of those that new turns may hold.",
        "percentunit",
        (f"{gauge('slots_held', 'stage')} / ({gauge('slots', 'stage')} > 0)", "{{stage}}"),
        limit=0.9,
    )
    yield panel(
        "Slots left",
        "Over all replicas.",
        "none",
        (f"{gauge('slots', 'stage')} - {gauge('slots_held', 'stage')}", "{{stage}}"),
    )
    yield panel(
        "Admit wait, p95",
        "Until the stage had room.",
        "s",
        (quantile(0.95, "admit_wait_seconds", "stage"), "{{stage}}"),
    )
    yield panel(
        "First item, p95",
        "Until the stage gave something out, the stages before it included.",
        "s",
        (quantile(0.95, "first_item_seconds", "stage"), "{{stage}}"),
    )
    yield panel(
        "Turns", "By how they ended.", "reqps", (rate("turns_total", "stage, outcome"), "{{stage}} {{outcome}}")
    )
    yield panel(
        "Step, p95",
        "Of a batch. Split: the Backbone's has the way to the Decoder and back in it.",
        "s",
        (quantile(0.95, "step_seconds", "stage, placement"), "{{stage}} {{placement}}"),
        limit=FRAME_S,
    )
    yield panel(
        "Step, median",
        "Of a batch.",
        "s",
        (quantile(0.5, "step_seconds", "stage, placement"), "{{stage}} {{placement}}"),
    )
    yield panel(
        "Rows that share a step, median", "Streams.", "none", (quantile(0.5, "step_rows", "stage"), "{{stage}}")
    )
    yield panel("Steps", "In a second, over all replicas.", "none", (rate("steps_total", "stage"), "{{stage}}"))
    yield panel(
        "Engines at work",
        "Seconds in steps for each second, by replica; at 1 an engine never rests.",
        "none",
        (rate("busy_seconds_total", "stage, replica"), "{{stage}} {{replica}}"),
    )
    yield panel(
        "Cost of speech",
        "Seconds of an engine's work for a second of audio: the stage's RTF, shared by all in its batches.",
        "none",
        (f"{rate('busy_seconds_total', 'stage')} / ({rate('audio_seconds_total', 'stage')} > 0)", "{{stage}}"),
    )
    yield panel(
        "Prefill", "Positions in a second.", "none", (rate("prefill_positions_total", "replica"), "{{replica}}")
    )
    yield panel("Voices encoded", "In a second.", "none", (rate("voices_total", "replica"), "{{replica}}"))


def page(uid: str, title: str, about: str, panels: Iterable[timeseries.Panel]) -> str:
    """As JSON."""
    application = (
        dashboard.QueryVariable("application")
        .datasource(SOURCE)
        .query("label_values(ray_chroma_turns_running, application)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .multi(True)
        .all_value(".*")
    )
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["chroma"])
        .refresh("30s")
        .time("now-1h", "now")
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
        .with_variable(application)
    )
    for i, each in enumerate(panels):
        made = made.with_panel(
            each.id(i + 1).grid_pos(GridPos(h=HEIGHT, w=WIDTH, x=i % COLUMNS * WIDTH, y=i // COLUMNS * HEIGHT))
        )
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def pages() -> dict[str, str]:
    """By file name."""
    return {
        "listeners.json": page(
            "chroma-listeners", "Chroma: what listeners get", "First audio, gaps, refusals.", listeners()
        ),
        "stages.json": page("chroma-stages", "Chroma: stages", "Slots, waits, steps and batches.", stages()),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name, file=sys.stderr)
