"""Fuzzes all that reads what others wrote, the HTTP routes and the state machines, and tells what was found.

python -m tests.fuzz [--cases 100000] [--seed 1] [TARGET ...]    exits 1 where anything was found
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.fuzz import http, machines

ATHERIS = ("audio", "live-audio", "base64", "chat", "realtime", "settings", "form", "grpc")
DRAWN: dict[str, Callable[[int], dict[str, Any]]] = {  # by hypothesis, in this process
    "http": http.run,
    **{name: partial(machines.run, name) for name in machines.MACHINES},
}
TARGETS = (*ATHERIS, *DRAWN)
LONGEST_CPU_S = 1.0
TOLD_LINES = 40

Outcome = tuple[dict[str, Any], str]  # what was measured, and what was found: empty where nothing was


def main() -> int:
    options = _options()
    found = 0
    for target in options.target or TARGETS:
        began = time.monotonic()
        if target in DRAWN:
            figures, fault = drawn(target, options.cases)
        else:
            figures, fault = fuzz([target], options.cases, options.seed)[target]
        slow = figures.get("longest_cpu_s", 0.0) > LONGEST_CPU_S
        found += bool(fault) or slow
        verdict = "FAILED" if fault else "SLOW" if slow else "ok"
        told = f"{figures.get('cases', 0):>9,} cases, longest {figures.get('longest_cpu_s', 0.0):.3f} s of CPU"
        print(f"{target:<10} {verdict:<6} {told}, {time.monotonic() - began:.0f} s in all", flush=True)
        if fault:
            print(fault, flush=True)
    return 1 if found else 0


def fuzz(targets: Sequence[str], cases: int, seed: int) -> dict[str, Outcome]:
    """Of each target, in turn."""
    folder = Path(mkdtemp(prefix="chroma-fuzz-"))
    command = [sys.executable, "-m", "tests.fuzz.atheris_run", str(cases), str(seed), str(folder), *targets]
    subprocess.run(command, check=True)
    return {target: _outcome(folder / target) for target in targets}


def _outcome(folder: Path) -> Outcome:
    figures = folder / "figures.json"
    if figures.exists():
        return json.loads(figures.read_text()), ""
    last = (folder / "log").read_text("utf-8", "replace").splitlines()[-TOLD_LINES:]
    return {}, "\n".join([*last, f"the case and the log are in {folder}"])


def drawn(name: str, cases: int) -> Outcome:
    try:
        return DRAWN[name](cases), ""
    except Exception:
        return {}, traceback.format_exc()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="of each target; of a state machine, steps")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzed bytes, where there are such")
    parser.add_argument("target", nargs="*", help="by default all")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
