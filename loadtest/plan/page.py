"""A plan as one HTML file, with the curves it was made from."""

from typing import Any

import jinja2

from loadtest.load.page import INK, TEMPLATES, drawn
from loadtest.plan.planner import Plan, PoolPlan
from loadtest.plan.queueing import erlang_b
from loadtest.plan.told import told


def page(plan: Plan, price: float | None) -> str:
    template: jinja2.Template = TEMPLATES.get_template("plan.html")
    return template.render(lines=told(plan, price), plots=[svg for each in plan.pools for svg in _plots(plan, each)])


def _plots(plan: Plan, each: PoolPlan) -> list[str]:
    name = each.pool.name
    return [
        drawn(f"{name}: milliseconds a frame, by streams", lambda axes: _curves(axes, each)),
        drawn(f"{name}: first audio, ms, by streams", lambda axes: _first(axes, plan, each)),
        drawn(f"{name}: per cent refused, by replicas", lambda axes: _refused(axes, plan, each)),
    ]


def _curves(axes: Any, each: PoolPlan) -> None:
    for stage in each.pool.stages:
        points = stage.busy.points
        style = "-" if points[0].source.startswith("measured") else "--"
        line = axes.plot([p.streams for p in points], [p.ms for p in points], style, marker="o", label=stage.name)[0]
        axes.annotate(points[-1].source, (points[-1].streams, points[-1].ms), fontsize=7, color=line.get_color())
    axes.axvline(each.streams, color=INK["other"], linestyle=":")
    axes.set(xlabel="streams", ylim=(0, None))


def _first(axes: Any, plan: Plan, each: PoolPlan) -> None:
    counts = [each.streams * share / 40 for share in range(1, 45)]
    for share, ink in ((0.5, "p50"), (0.95, "p95")):
        waits = [1000 * (plan.alone_s + each.pool.wait_s(n, share)) for n in counts]
        axes.plot(counts, waits, label=f"p{100 * share:.0f}", color=INK[ink])
    first = plan.slo.find("first_audio")
    if first is not None:
        axes.axhline(1000 * first.most, color=INK["p95"], linestyle=":", label=str(first))
        axes.set(ylim=(0, 3000 * first.most))
    axes.axvline(each.streams, color=INK["other"], linestyle=":")
    axes.set(xlabel="streams")


def _refused(axes: Any, plan: Plan, each: PoolPlan) -> None:
    counts = range(max(1, round(0.7 * each.replicas)), round(1.3 * each.replicas) + 2)
    shares = [100 * erlang_b(plan.load / count, each.streams) for count in counts]
    axes.plot(list(counts), shares, marker=".", color=INK["p50"])
    axes.axvline(each.replicas, color=INK["other"], linestyle=":")
    axes.set(xlabel="replicas", ylim=(0, None))
