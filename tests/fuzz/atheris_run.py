"""Targets in processes of their own: atheris ends its process, and so may a decoder written in C.

python -m tests.fuzz.atheris_run CASES SEED FOLDER TARGET ...    leaves FOLDER/TARGET: log, figures.json, what was found
"""

import json
import logging
import os
import sys
import time
from pathlib import Path

import atheris

from tests.fuzz.targets import TARGETS, Target

HUNG_S = 120  # of wall time, then libFuzzer ends the process
MOST_MB = 3_000  # of memory, the same


def main() -> None:
    """A process for each, forked, since importing what is fuzzed takes longer than a short run."""
    cases, seed, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    for name in sys.argv[4:]:
        (folder / name).mkdir(parents=True)
        if child := os.fork():
            os.waitpid(child, 0)
        else:
            _fuzz(TARGETS[name], cases, seed, folder / name)


def _fuzz(target: Target, cases: int, seed: int, folder: Path) -> None:
    """Never returns."""
    logging.disable(logging.CRITICAL)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, case in enumerate(target.seeds()):
        (corpus / f"seed{i}").write_bytes(case)
    done, longest_s, slowest = 0, 0.0, b""

    def once(data: bytes) -> None:
        nonlocal done, longest_s, slowest
        began = time.process_time()
        target.run(data)
        took_s = time.process_time() - began
        done += 1
        if took_s > longest_s:
            longest_s, slowest = took_s, data
        if done >= cases:
            (folder / "slowest").write_bytes(slowest)
            (folder / "figures.json").write_text(json.dumps({"cases": done, "longest_cpu_s": round(longest_s, 3)}))
            os._exit(0)  # atheris has no other end that leaves the exit status alone

    options = [
        f"-artifact_prefix={folder}/",
        f"-max_len={target.longest_bytes}",
        f"-rss_limit_mb={MOST_MB}",
        f"-seed={seed}",
        f"-timeout={HUNG_S}",
        "-runs=-1",
        "-verbosity=0",
    ]
    atheris.Setup(["fuzz", *options, str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
