"""What the ingress itself adds to live streams, and what it takes: no graph, no models, a speaker that echoes.

The ingress runs in a process of its own (`chroma bench-ingress`). Each stream sends a piece of 80 ms of audio 12.5
times a second over the Realtime WebSocket or gRPC, and hears as much, in lists of a frame or of four: the Codec sends
lists of four and more once a reply plays. Measured: how old a list is when it arrives, the round trip of a piece with a
question behind it, and the cores of the ingress' process; with and without turn detection.

python -m loadtest.echo_bench --streams 100 --seconds 12 --json FILE
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import grpc
import uvloop

from loadtest import machine
from loadtest.contract import contract
from loadtest.crowd import Lateness
from loadtest.echo_clients import PIECE_S, Caller, GrpcCaller, Timed, WebSocketCaller, converse
from loadtest.processes import cpu_s
from loadtest.server import CHROMA, NoServer
from loadtest.spread import spread

P99_MS, CORES = 10.0, 0.4  # wanted at 100 streams, turn detection apart
START_S = 60.0
CONNECTIONS = 10  # of gRPC; streams share them


def main() -> int:
    options = _options()
    result: dict[str, Any] = {"benchmark": "echo", "machine": machine.machine(), "seconds": options.seconds}
    result["load_average"] = os.getloadavg()[0]
    print(machine.line(result["machine"]), flush=True)
    print(f"wanted at 100 streams without turn detection: p99 {P99_MS:g} ms, {CORES:g} cores", flush=True)
    try:
        result["by_run"] = []
        for list_frames in map(int, options.list_frames.split(",")):
            print(f"replies in lists of {list_frames} frames:", flush=True)
            with echoing(list_frames) as server:
                result["by_run"] += [
                    {"list_frames": list_frames}
                    | uvloop.run(measure(server, protocol, int(streams), listens == "vad", options.seconds))
                    for protocol in options.protocols.split(",")
                    for streams in options.streams.split(",")
                    for listens in options.turn_detection.split(",")
                ]
    except NoServer as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if any(run["errors"] for run in result["by_run"]) else 0


@contextlib.contextmanager
def echoing(list_frames: int, *options: str) -> Iterator[dict[str, int]]:
    """The ingress, with its ports and its process' id. Its streams bring list_frames at once."""
    with TemporaryDirectory(prefix="echo-bench-") as folder:
        told, log = Path(folder) / "told.json", Path(folder) / "log"
        with log.open("wb") as said:
            command = [str(CHROMA), "bench-ingress", str(told), "--list-frames", str(list_frames), *options]
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        try:
            ends_at = time.monotonic() + START_S
            while not told.exists():
                if process.poll() is not None or time.monotonic() > ends_at:
                    raise NoServer(f"`chroma bench-ingress` did not start:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.1)
            yield json.loads(told.read_text())
        finally:
            process.terminate()  # it may have been killed already
            process.wait(30)


async def measure(server: dict[str, int], protocol: str, streams: int, listens: bool, seconds: float) -> dict[str, Any]:
    async with contextlib.AsyncExitStack() as stack:
        callers: list[Caller] = []
        if protocol == "websocket":
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
            url = f"ws://127.0.0.1:{server['http']}/v1/realtime"
            callers = [WebSocketCaller(session, url) for _ in range(streams)]
        else:
            address = f"127.0.0.1:{server['grpc']}"
            messages = await asyncio.to_thread(contract, address)
            apart = [("grpc.use_local_subchannel_pool", 1)]
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(address, options=apart))
                for _ in range(min(streams, CONNECTIONS))
            ]
            callers = [GrpcCaller(channels[i % len(channels)], messages) for i in range(streams)]
        late = Lateness()
        beating = asyncio.create_task(late.beat())
        talking = [
            asyncio.create_task(converse(caller, 1.0 * i / streams, seconds, listens))
            for i, caller in enumerate(callers)
        ]
        await asyncio.sleep(2.0)  # all have begun
        before, began = sum(cpu_s(server["pid"]).values()), time.monotonic()
        await asyncio.sleep(seconds - 2.5)
        cores = (sum(cpu_s(server["pid"]).values()) - before) / (time.monotonic() - began)
        timed = await asyncio.gather(*talking)
        beating.cancel()
    return _told(protocol, listens, streams, seconds, cores, late.longest_s, timed)


def _told(
    protocol: str, listens: bool, streams: int, seconds: float, cores: float, late_s: float, timed: list[Timed]
) -> dict[str, Any]:
    run: dict[str, Any] = {
        "protocol": protocol,
        "streams": streams,
        "turn_detection": listens,
        "cores": round(cores, 3),
        "down_ms": spread([ms for one in timed for ms in one.down], 3),
        "round_trip_ms": spread([ms for one in timed for ms in one.round_trip], 3),
        "heard_s": round(sum(one.heard_s for one in timed), 2),
        "heard_wanted_s": round(streams * int(seconds / PIECE_S) * PIECE_S, 2),
        "client_late_ms": round(1000 * late_s, 1),
        "errors": [error for one in timed for error in one.errors],
    }
    if run["down_ms"]:
        print(
            f"{protocol:9s} {streams:4d} streams{', turn detection' if listens else '':16s}: "
            f"down {run['down_ms']['p50']:.2f} ms p50, {run['down_ms']['p99']:.2f} p99; "
            f"round trip {run['round_trip_ms']['p50']:.2f} p50, {run['round_trip_ms']['p99']:.2f} p99; "
            f"{cores:.2f} cores; client at most {run['client_late_ms']:.0f} ms late",
            flush=True,
        )
    for error in run["errors"][:3]:
        print(f"      {error}")
    return run


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.echo_bench", description=__doc__)
    parser.add_argument("--streams", default="100", help="at once, with commas")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each run; 4 and more")
    parser.add_argument("--list-frames", default="1,4", help="of a reply, that come at once; with commas")
    parser.add_argument("--protocols", default="websocket,grpc")
    parser.add_argument("--turn-detection", default="off,vad", help="off, vad or both with a comma")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
