"""Kills and stops replicas of a running cluster by a seeded schedule while people listen, and says what they noticed.

python -m tests.chaos --seed 1 --streams 20 --kills 3 --reasoner torch
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from loadtest import machine
from loadtest.server import random_checkpoint
from tests.chaos.run import Plan, run
from tests.chaos.told import show


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", default="1", help="of the schedule; several with commas")
    parser.add_argument("--streams", type=int, default=20, help="listeners, each asking again as soon as it has heard")
    parser.add_argument("--kills", type=int, default=3, help="of each stage")
    parser.add_argument("--pauses", type=int, default=1, help="of each stage, by SIGSTOP")
    parser.add_argument("--controllers", type=int, default=1, help="kills of Serve's controller")
    parser.add_argument("--slow", type=int, default=1, help="listeners who stop reading for a while")
    parser.add_argument("--crowds", type=int, default=1, help="of more askers at once than all slots")
    parser.add_argument("--replicas", type=int, default=2, help="of each stage; the last one is never killed")
    parser.add_argument("--reply-s", type=float, default=5.0)
    parser.add_argument("--reasoner", choices=["torch", "vllm"], default="torch")
    parser.add_argument("--placement", choices=["split", "fused"], default="split")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/tiny"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    told = machine.machine()
    print(machine.line(told), flush=True)
    results = []
    for seed in map(int, options.seed.split(",")):
        plan = Plan(
            seed,
            options.streams,
            options.kills,
            options.pauses,
            options.replicas,
            options.reply_s,
            options.reasoner,
            options.placement,
            options.controllers,
            options.slow,
            options.crowds,
        )
        results.append(asyncio.run(run(plan, random_checkpoint(options.checkpoint))))
    show(results)
    if options.json:
        whole = {"benchmark": "chaos", "machine": told, "by_seed": results}
        options.json.write_text(json.dumps(whole, indent=1) + "\n")
    return 1 if any(result["faults"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
