"""How soon a reply has stopped at every stage once nobody wants it, on a graph of this machine. A benchmark, no test.

python -m tests.deployments.stopping --rounds 20
"""

import argparse
import asyncio
import time
from pathlib import Path

from loadtest import machine
from loadtest.server import random_checkpoint
from loadtest.spread import spread
from tests.deployments.graph import Graph
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.session.speech import pieces, silence, spoken

MESSAGE_MS, VOICE_MS = 50, 200  # wanted
PIECE_S = 0.02
LONG_S = 50.0  # of a reply, so that it is still being made


async def by_message(graph: Graph, client: Client) -> dict[str, float]:
    """Milliseconds since the message was sent."""
    done, heard = len(client.all("response.done")), len(client.all("response.output_audio.delta"))
    await client.say("Go on and on.")
    await client.send("response.create")
    await client.one("response.output_audio.delta", heard + 2)
    began = time.monotonic()
    await client.send("response.cancel")
    return await _stopped(graph, client, done + 1, began)


async def by_voice(graph: Graph, client: Client) -> dict[str, float]:
    """Milliseconds since the first sample of speech was heard by the microphone."""
    done, heard = len(client.all("response.done")), len(client.all("response.output_audio.delta"))
    await client.say("Go on and on.")
    await client.send("response.create")
    await client.one("response.output_audio.delta", heard + 2)
    sounds = pieces(silence(0.3) + spoken()[: 2 * 24_000], PIECE_S)
    began = time.monotonic() + 0.3
    talking = asyncio.create_task(_microphone(client, sounds))
    try:
        return await _stopped(graph, client, done + 1, began)
    finally:
        await talking
        await client.send("input_audio_buffer.clear")


async def _microphone(client: Client, sounds: list[bytes]) -> None:
    due = time.monotonic()
    for piece in sounds:
        due += PIECE_S
        await asyncio.sleep(due - time.monotonic())
        await client.append(piece)


async def _stopped(graph: Graph, client: Client, done: int, began: float) -> dict[str, float]:
    stages = [stage for stage in ("Codec", "Backbone", "Reasoner") if stage in graph.stages]
    told, *freed = await asyncio.gather(_told(client, done, began), *(_freed(graph, stage, began) for stage in stages))
    return {"response.done": told, **dict(zip(stages, freed, strict=True))}


async def _told(client: Client, done: int, began: float) -> float:
    ended = await client.one("response.done", done)
    assert ended["response"]["status"] == "cancelled", ended
    return 1000 * (time.monotonic() - began)


async def _freed(graph: Graph, stage: str, began: float) -> float:
    """Until the answer of a stage that holds no slot, the way of the question and the answer included."""
    while True:
        state = await graph.state(stage)
        if not state["slots_held"] and time.monotonic() > began:
            return 1000 * (time.monotonic() - began)


async def _asked_ms(graph: Graph) -> float:
    began = time.monotonic()
    await graph.state("Backbone")
    return 1000 * (time.monotonic() - began)


async def measure(graph: Graph, rounds: int) -> None:
    asked = [await _asked_ms(graph) for _ in range(50)]
    print(f"a question to a stage and its answer alone: p50 {spread(asked, 1)['p50']} ms")
    client = await Client.to(graph.url.replace("http", "ws"))
    detection = {"type": "server_vad", "create_response": False}
    session = {"type": "realtime", "audio": {"input": {"turn_detection": detection}}, "chroma": {"max_reply_s": LONG_S}}
    await client.send("session.update", session=session)
    for name, wanted, one in (("message", MESSAGE_MS, by_message), ("voice", VOICE_MS, by_voice)):
        await one(graph, client)  # warms up
        taken = [await one(graph, client) for _ in range(rounds)]
        print(f"by {name} (wanted: under {wanted} ms):")
        for what in taken[0]:
            told = spread([round_[what] for round_ in taken], 0)
            print(f"  {what:14s} p50 {told['p50']:.0f}, p95 {told['p95']:.0f}, max {told['max']:.0f} ms")
    await client.close()


def main() -> None:
    from deployments.cluster import local_ray

    parser = argparse.ArgumentParser(prog="python -m tests.deployments.stopping", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--reasoner", choices=["vllm", "torch"], default="vllm")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/tiny"), help="made if it is not there")
    options = parser.parse_args()
    checkpoint = random_checkpoint(options.checkpoint).resolve()
    with local_ray():
        graph = Graph.start("stopping", checkpoint, models={"reasoner": {"engine": options.reasoner}})
        print(machine.line(machine.machine()))
        asyncio.run(measure(graph, options.rounds))
        graph.stop()


if __name__ == "__main__":
    main()
