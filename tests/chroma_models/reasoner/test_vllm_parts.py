"""The parts around vLLM that need no engine: noise for both model runners, the model folder, the row check."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import ReasonerConfig
from chroma_models.reasoner.row_check import RowCheck, row_bytes
from chroma_models.reasoner.vllm_config import engine_args
from chroma_models.sampling import TEXT, RowSampling, choose
from chroma_models.types import Sampling
from tests.chroma_models.reasoner.conversations import FP32

VOCAB = 300


def our_choice(logits: Tensor, samplings: list[Sampling], indices: list[int]) -> list[int]:
    rows = [Sampling(s.seed, temperature=s.text_temperature, top_k=0) for s in samplings]
    sampling = RowSampling.of(rows, indices, logits.device)
    noise = sampling.noise(torch.tensor([TEXT]), logits.shape[-1])
    assert noise is not None
    return choose(logits, sampling, noise[:, 0]).tolist()


def test_both_model_runners_draw_what_our_own_sampler_draws() -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate

    from chroma_models.reasoner.vllm_sampling import RunnerV2TextNoise, TextNoise, noise_args

    samplings = [Sampling(3, text_temperature=0.7), Sampling(4), Sampling(2**62, text_temperature=1.6)]
    first, made, prompts = [0, 5, 9], [[], [1, 2], [7] * 11], [20, 30, 40]
    params = [
        SamplingParams(temperature=0.0, extra_args=noise_args(s, f)) for s, f in zip(samplings, first, strict=True)
    ]
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(0))
    wanted = our_choice(logits, samplings, [f + len(m) for f, m in zip(first, made, strict=True)])

    one = TextNoise(None, logits.device, False)
    added = [(i, p, None, m) for i, (p, m) in enumerate(zip(params, made, strict=True))]
    one.update_state(BatchUpdate(batch_size=3, removed=[], added=added, moved=[]))
    assert one.apply(logits.clone()).argmax(-1).tolist() == wanted
    assert not one.is_argmax_invariant()

    slots = [6, 2, 4]  # in the second runner rows come in another order than slots
    lengths = np.zeros(8, np.int64)
    lengths[slots] = prompts
    two = RunnerV2TextNoise(None, SimpleNamespace(prompt_len=SimpleNamespace(np=lengths)))
    drawing = [two.add_request(slot, p) for slot, p in zip(slots, params, strict=True)]
    assert drawing == [True, False, True]
    seen = np.array([p + len(m) for p, m in zip(prompts, made, strict=True)])
    context = SimpleNamespace(idx_mapping_np=np.array(slots), seq_lens_upper_bound_np=seen)
    assert two.apply(logits.clone(), context).argmax(-1).tolist() == wanted
    two.add_request(6, SamplingParams(temperature=0.0))  # a reused slot is a different slot
    assert torch.equal(two.apply(logits.clone(), context)[0], logits[0])


def test_the_model_folder_says_what_the_weights_say(golden: Path, tmp_path: Path) -> None:
    from chroma_models.reasoner.vllm_config import write_model_folder

    checkpoint = Checkpoint.open(golden / "checkpoint")
    write_model_folder(checkpoint, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    text = written["thinker_config"]["text_config"]
    assert text["tie_word_embeddings"] == written["thinker_config"]["tie_word_embeddings"] == checkpoint.tied_lm_head
    assert "mrope_section" not in text["rope_parameters"]
    assert (tmp_path / "model.safetensors").resolve() == (golden / "checkpoint" / "model.safetensors").resolve()
    assert (tmp_path / "tokenizer.json").exists()
    assert not (golden / "checkpoint" / "config.json").is_symlink()


def test_shards_without_a_thinker_are_left_out(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from chroma_models.reasoner.vllm_config import write_model_folder

    source, target = tmp_path / "sharded", tmp_path / "vllm"
    source.mkdir()
    target.mkdir()
    for file in tiny.iterdir():
        if file.name != "model.safetensors":
            (source / file.name).write_bytes(file.read_bytes())
    weights = load_file(tiny / "model.safetensors")
    shard_of = {name: f"model-{'1' if name.startswith('thinker.') else '2'}.safetensors" for name in weights}
    for shard in set(shard_of.values()):
        save_file({name: w for name, w in weights.items() if shard_of[name] == shard}, source / shard)
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    write_model_folder(Checkpoint.open(source), target)
    assert {file.name for file in target.glob("*.safetensors")} == {"model-1.safetensors"}


def rows_of(checkpoint: Checkpoint, count: int) -> list[tuple[int, Tensor]]:
    """Rows as the final norm leaves them, with the tokens they prefer."""
    norm = checkpoint.tensor("thinker.model.norm.weight", torch.device("cpu"), torch.float32)
    head = checkpoint.tensor("thinker.lm_head.weight", torch.device("cpu"), torch.float32)
    x = torch.randn(count, len(norm), generator=torch.Generator().manual_seed(1))
    rows = torch.nn.functional.rms_norm(x, (len(norm),), norm, 1e-6)
    return list(zip((rows @ head.T).argmax(-1).tolist(), rows, strict=True))


def test_right_rows_pass_and_every_wrong_one_is_named(tiny: Path) -> None:
    checkpoint = Checkpoint.open(tiny)
    check = RowCheck(checkpoint, FP32)
    steps = rows_of(checkpoint, 6)
    assert check.problem(steps) is None
    assert "no token" in str(check.problem([]))
    for i in range(6):
        for row in (
            None,
            steps[i][1] * 1.2,
            steps[i - 1][1],
            steps[i][1][:3],
            steps[i][1] * torch.inf,
            steps[i][1].int(),
        ):
            wrong = [*steps[:i], (steps[i][0], row), *steps[i + 1 :]]
            assert check.problem(wrong) is not None


def test_row_bytes_keep_every_bit() -> None:
    row = torch.randn(9)
    assert np.array_equal(np.frombuffer(row_bytes(row), np.float32), row.numpy())
    half = row.bfloat16()
    back = torch.frombuffer(bytearray(row_bytes(half)), dtype=torch.bfloat16)
    assert torch.equal(back, half)


def test_neighbours_on_a_gpu_do_not_keep_the_engine_from_starting(tmp_path: Path) -> None:
    """vLLM's start-up check wants this share of the GPU free, although the KV cache is sized in bytes."""
    assert engine_args(ReasonerConfig(), FP32, tmp_path)["gpu_memory_utilization"] < 0.05


def test_handlers_of_the_process_outlive_vllms_own_logging(tmp_path: Path) -> None:
    """Serve writes to its file through a handler in memory, and asks it where that is when its controller is new."""
    program = """
import logging, logging.handlers, sys
from chroma_models.config import TorchConfig
from chroma_models.reasoner.vllm_config import prepare_environment
target = logging.FileHandler(sys.argv[1])
memory = logging.handlers.MemoryHandler(8, target=target)
logging.getLogger("ray.serve").addHandler(memory)
prepare_environment(TorchConfig())
from vllm.config.logging import LoggingConfig
from vllm.logger import configure_logging_if_needed
configure_logging_if_needed(LoggingConfig())  # as the engine does when it is made
assert memory.target is target and not memory._closed
assert logging.getLogger("vllm").level == logging.ERROR
"""
    command = [sys.executable, "-c", program, str(tmp_path / "log")]
    said = subprocess.run(command, check=False, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
