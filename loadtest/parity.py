"""Parity with the public reference as a benchmark result: `chroma parity` on goldens folders, summed up.

python -m loadtest.parity GOLDEN_DIR ... --json loadtest/results/parity-cpu.json
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from loadtest.machine import machine

CHROMA = Path(sys.executable).parent / "chroma"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("goldens", nargs="+", type=Path)
    parser.add_argument("--reasoner", choices=("vllm", "torch"), default="vllm")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lines = [line for golden in options.goldens for line in compared(golden, options.reasoner)]
    result = {"benchmark": "parity", "machine": machine(), "reasoner": options.reasoner, "rows": rows(lines)}
    for what, figure in result["rows"]:
        print(f"{what}: {figure}")
    if options.json is not None:
        options.json.write_text(json.dumps({**result, "lines": lines}, indent=1) + "\n")
    return 0 if all(line["passed"] for line in lines) else 1


def compared(golden: Path, reasoner: str) -> list[dict[str, Any]]:
    """The largest error of every tensor of one folder."""
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "errors.json"
        command = [str(CHROMA), "parity", str(golden), "--reasoner", reasoner, "--errors", str(errors)]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        found: list[dict[str, Any]] = json.loads(errors.read_text())
    return [{"golden": golden.name, **line} for line in found]


def rows(lines: list[dict[str, Any]]) -> list[list[str]]:
    """What the README tells."""
    exact = [line for line in lines if line["exact"]]
    equal = sum(line["error"] == 0 for line in exact)
    speech = max((line["error"] for line in lines if line["tensor"].endswith("wave")), default=0.0)
    return [
        ["codes and tokens against the public reference, float32, greedy", f"{equal} of {len(exact)} tensors equal"],
        ["speech against the reference's offline decode, largest error", f"{speech:.1e}"],
    ]


if __name__ == "__main__":
    sys.exit(main())
