"""A steady mixed load on a tiny graph: HTTP, WebSocket and gRPC, hang-ups and interruptions; does anything grow?

python -m tests.soak --minutes 30 --json FILE --plot FILE

Memory, descriptors and threads of every stage, slots, tasks, shared memory and first audio are looked at all the time.
After the warm-up a line is fitted through each; the command fails where one grows by more than noise and its limit
allow, where a turn fails, or where something is left over.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from loadtest import machine
from loadtest.server import random_checkpoint
from tests.soak.run import Plan, soak, start
from tests.soak.told import plot, show

LONGEST_MINUTES = 24 * 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="up to 1440, a day")
    parser.add_argument("--warm-up-minutes", type=float, help="by default a fifth of the time, and 10 at most")
    parser.add_argument("--callers", type=int, default=6)
    parser.add_argument("--reply-s", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reasoner", choices=["torch", "vllm"], default="torch")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/tiny"), help="made if it is not there")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if not 0 < options.minutes <= LONGEST_MINUTES:
        parser.error(f"--minutes is between 0 and {LONGEST_MINUTES}")
    warm_up = options.warm_up_minutes if options.warm_up_minutes is not None else min(10.0, options.minutes / 5)
    if not 0 <= warm_up < options.minutes:
        parser.error("--warm-up-minutes is shorter than --minutes")
    from deployments.cluster import local_ray

    told = machine.machine()
    print(machine.line(told), flush=True)
    plan = Plan(60 * options.minutes, 60 * warm_up, options.callers, options.reply_s, options.seed)
    with local_ray():
        graph = start(plan, random_checkpoint(options.checkpoint).resolve(), options.reasoner)
        try:
            result = asyncio.run(soak(graph, plan))
        finally:
            graph.stop()
    show(result)
    if options.json:
        whole = {"benchmark": "soak", "machine": told, "reasoner": options.reasoner, **result}
        options.json.write_text(json.dumps(whole, separators=(",", ":")) + "\n")
    if options.plot:
        plot(result, options.plot)
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
