"""Tables and plots from loadtest/results/*.json, and the README's "paper | ours" table between its markers.

python -m loadtest.report            write loadtest/results/REPORT.md, the plots, and the README's table
python -m loadtest.report --check    write nothing; exit code 1 when the README or the report is not what they say
"""

import argparse
import json
import sys
from pathlib import Path

from loadtest.report.cells import Result
from loadtest.report.comparison import table
from loadtest.report.plots import plots
from loadtest.report.sections import report

RESULTS = Path(__file__).resolve().parent.parent / "results"
ROOT = RESULTS.parent.parent
START, END = "<!-- table:start -->", "<!-- table:end -->"


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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--check", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
