"""What vLLM is told: a model folder it can read, made from the checkpoint's, and the arguments of its engine."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch

from chroma_models.checkpoint.architecture import read_json
from chroma_models.checkpoint.weights import INDEX, SINGLE, Checkpoint
from chroma_models.config import ReasonerConfig, TorchConfig
from chroma_models.loading import device_of, dtype_of, threads_of
from chroma_models.reasoner import vllm_pace
from chroma_models.reasoner.vllm_plugin import ARCHITECTURE

LOGGING = Path(__file__).parent / "vllm_logging.json"
LEAST_FREE = 0.01  # of a GPU; by default 0.92, which neighbours on the same one would not leave
MM_CACHE_GB = 0.25  # processed audio kept for the next turn of its conversation; vLLM's 4 GiB would look like a leak


def write_model_folder(checkpoint: Checkpoint, folder: Path) -> None:
    """A folder that looks to vLLM like a model of its own: links to the checkpoint's files, and a qwen2_5_omni config.

    Shards without a tensor of the thinker are left out. Two things are put right in the config. The head is tied
    exactly when the checkpoint has none of its own: what the published thinker and text configs say of it contradicts
    itself, and vLLM would leave the head random. And M-RoPE becomes plain rope, which it is as long as nobody looks at
    anything.
    """
    source = checkpoint.folder.resolve()
    wanted = {SINGLE}
    if not (source / SINGLE).exists():
        shard_of = read_json(source / INDEX)["weight_map"]
        wanted = {shard_of[name] for name in checkpoint.names("thinker")}
    for file in source.iterdir():
        described = file.suffix in (".json", ".jinja", ".txt") and file.name not in ("config.json", INDEX)
        if described or file.name in wanted:
            (folder / file.name).symlink_to(file)
    thinker = copy.deepcopy(dict(checkpoint.architecture.raw["thinker_config"]))
    text = thinker["text_config"]
    for owner in (thinker, text):
        owner["tie_word_embeddings"] = checkpoint.tied_lm_head
    text.pop("rope_scaling", None)
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": checkpoint.architecture.reasoner.rope.theta}
    config = {"model_type": "qwen2_5_omni", "architectures": [ARCHITECTURE], "thinker_config": thinker}
    (folder / "config.json").write_text(json.dumps(config))


def engine_args(config: ReasonerConfig, torch_config: TorchConfig, folder: Path) -> dict[str, Any]:
    """Arguments of AsyncEngineArgs, all but the logits processor and the loggers. folder is write_model_folder's."""
    eager = device_of(torch_config).type == "cpu" if config.enforce_eager is None else config.enforce_eager
    return {
        "model": str(folder),
        "worker_cls": "chroma_models.reasoner.vllm_worker.HiddenRowWorker",
        "dtype": "float32" if dtype_of(torch_config) == torch.float32 else "bfloat16",
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.slots,
        "kv_cache_memory_bytes": config.kv_cache_bytes,
        # Sizes nothing where the cache is given in bytes, but vLLM refuses to start on a GPU with less than this free.
        "gpu_memory_utilization": LEAST_FREE,
        "enforce_eager": eager,
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        "additional_config": {vllm_pace.COMPANY: config.company, vllm_pace.INTERVAL_S: config.step_interval_s},
        "limit_mm_per_prompt": {"audio": config.max_audio_parts},
        "mm_processor_cache_gb": MM_CACHE_GB,
        "generation_config": "vllm",  # nothing but im_end ends a reply, whatever generation_config.json says
        "disable_log_stats": True,  # custom loggers are called all the same
        "seed": 0,
    }


def prepare_environment(torch_config: TorchConfig) -> None:
    """Before vLLM is imported."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # Our own progress lines say what an operator needs. vLLM's way to set its loggers up closes every handler of the
    # process, and a controller that starts anew takes a replica whose handlers are closed for broken, and stops it.
    os.environ.setdefault("VLLM_LOGGING_CONFIG_PATH", str(LOGGING))
    # The stages share the cores of a CPU machine: pinned to one core, this one would wait for its neighbours.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    threads = threads_of(torch_config)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # Ray has set it too, to what its scheduler counts
