"""How many GPUs a promise needs."""

import re
from pathlib import Path

from chroma_models.errors import InvalidRequest
from loadtest.plan import page
from loadtest.plan.measured import RESULTS, BadMeasurements, read
from loadtest.plan.planner import BadPlan, Layout, Workload, plan
from loadtest.plan.roofline import GPUS
from loadtest.plan.told import told
from loadtest.slo import BadPromise, Slo


def print_plan(
    slo: str,
    sessions: int,
    turns_per_minute: float,
    question: str,
    reply: str,
    gpu: str,
    price: float | None,
    measurements: list[Path],
    html: Path | None,
    layout: Layout | None,
    gpus_per_node: int,
) -> None:
    """Raises InvalidRequest."""
    if gpu.lower() not in GPUS:
        raise InvalidRequest(f"--gpu is one of {', '.join(GPUS)}, not {gpu!r}.")
    if price is not None and price < 0:
        raise InvalidRequest("--price is what a GPU costs for an hour: 0 or more.")
    try:
        workload = Workload(sessions, turns_per_minute, seconds(question), seconds(reply))
        measured = read(measurements or [RESULTS], gpu)
        made = plan(Slo.read(slo), workload, GPUS[gpu.lower()], measured, layout, gpus_per_node)
    except (BadPromise, BadPlan, BadMeasurements) as error:
        raise InvalidRequest(str(error)) from error
    for line in told(made, price):
        print(line)
    if html is not None:
        html.write_text(page.page(made, price), encoding="utf-8")
        print(f"wrote {html}")


def seconds(text: str) -> float:
    """4s, 500ms, 1.5m or plain seconds. Raises BadPlan."""
    form = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|)", text)
    if form is None:
        raise BadPlan(f"{text!r} is no length of time: write 4s, 500ms or 1.5m.")
    return float(form[1]) * {"ms": 1e-3, "s": 1.0, "m": 60.0, "": 1.0}[form[2]]
