"""Runs an overlay's own manifests on hosts of their own, drains a worker and kills one under callers, and counts.

python -m tests.multihost --streams 20 --json FILE

Hosts are network namespaces (as root, or where users may make them), PostgreSQL is started beside them. The head and
two workers run what the manifest's containers run; serveConfigV2 is put to the head unchanged.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from loadtest import machine
from tests.deployments.ingress.postgres import new_database, server
from tests.multihost.hosts import NoHosts, command_inside
from tests.multihost.told import show

INSIDE = "CHROMA_MULTIHOST_INSIDE"  # the database's URL, where the namespaces are there already


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.multihost", description=__doc__)
    parser.add_argument("--streams", type=int, default=20, help="callers, each asking again as soon as it has heard")
    parser.add_argument("--reply-s", type=float, default=10.0, help="most of which a turn is under way")
    parser.add_argument("--blows", default="drain,kill", help="in their order, with commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="a new folder for the hosts' logs, which else are thrown away")
    options = parser.parse_args()
    if unknown := set(options.blows.split(",")) - {"drain", "kill"}:
        parser.error(f"--blows knows drain and kill, not {', '.join(sorted(unknown))}")
    if INSIDE in os.environ:
        return inside(options)
    try:
        command = command_inside([sys.executable, "-m", "tests.multihost", *sys.argv[1:]])
        with server() as folder:
            told = {**os.environ, INSIDE: new_database(folder, "chroma"), "RAY_AUTH_MODE": "disabled"}
            return subprocess.run(command, env=told, check=False).returncode
    except (NoHosts, pytest.skip.Exception) as error:
        print(error, file=sys.stderr)
        return 2


def inside(options: argparse.Namespace) -> int:
    from tests.multihost.run import Plan, run

    told = machine.machine()
    print(machine.line(told), flush=True)
    with tempfile.TemporaryDirectory(prefix="hosts-") as made:
        folder = options.keep or Path(made)
        blows = tuple(options.blows.split(","))
        plan = Plan(options.streams, options.reply_s, blows, options.seed, os.environ[INSIDE], folder.resolve())
        result = asyncio.run(run(plan))
    show(result)
    if options.json:
        whole = {"benchmark": "multihost", "machine": told, **result}
        options.json.write_text(json.dumps(whole, indent=1) + "\n")
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
