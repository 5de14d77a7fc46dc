"""What the public reference said, said by the running server: vLLM, Backbone, Decoder and Codec on a cluster."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.deployments.graph import Graph, exported
from tests.deployments.test_graph import client

pytestmark = [pytest.mark.serve, pytest.mark.vllm]


@pytest.fixture(scope="module")
def golden_graph(deployed: Callable[..., Graph], golden: Path) -> Iterator[Graph]:
    reasoner = {"engine": "vllm", "max_model_len": 1024, "slots": 4, "kv_cache_bytes": 64 << 20}
    graph = deployed(f"golden-{golden.name}", golden / "checkpoint", models={"reasoner": reasoner})
    yield graph
    graph.stop()


def clip(path: Path) -> dict[str, str]:
    return {"data": base64.b64encode(path.read_bytes()).decode(), "format": "wav"}


async def test_the_server_says_what_the_reference_says(golden_graph: Graph, golden: Path) -> None:
    """Both rows at once, question and voice as recorded: the same greedy codes, the same waveform."""
    meta = json.loads((golden / "meta.json").read_text())

    def turn(row: int) -> dict[str, object]:
        frames = meta["cases"][f"b1_row{row}"]["max_new_tokens"]
        question = {"type": "input_audio", "input_audio": clip(golden / f"user{row}.wav")}
        voice = {"reference": clip(golden / f"prompt{row}.wav"), "transcript": meta["prompt_texts"][row]}
        return {
            "messages": [
                {"role": "system", "content": meta["system_texts"][row]},
                {"role": "user", "content": [question]},
            ],
            "audio": {"voice": voice, "format": "pcm16"},
            "chroma": {"max_reply_s": frames / 12.5, "codes": True},
        }

    async with client() as http:
        both = await asyncio.gather(*(golden_graph.ask(http, **turn(row)) for row in (0, 1)))
    for row, heard in enumerate(both):
        want = load_file(golden / f"b1_row{row}.safetensors")
        assert np.array_equal(heard.codes, want["out.codes"][0].numpy())
        pcm = np.frombuffer(heard.pcm, np.int16) / 32768
        expected = np.clip(want["out.audio"].flatten().numpy(), -1, 1)
        assert np.abs(pcm - expected).max() < 1e-4 + 1 / 32768
        assert heard.usage["prompt_tokens"] == want["in.thinker_input_ids"].shape[1]
    await golden_graph.idle()


async def test_vllm_tells_its_own_metrics_through_ray(golden_graph: Graph) -> None:
    async with client() as http:
        await golden_graph.ask(http)
        text = await exported(http, "vllm", "chroma_slots_held")
    assert "generation_tokens" in text
