"""Our own noise inside vLLM, so that a text token is a function of (logits, seed, token index) and nothing else.

vLLM's seeded generators advance with every draw, so a request opened again would draw otherwise. Here vLLM always
samples greedily, and for a request that wants noise its logits are first divided by the temperature and given Gumbel
noise. vLLM's two model runners have a logits processor interface each; the engine names the class that fits.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext, LogitsProcRequestState
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as RunnerV2LogitsProcessor

from chroma_models.sampling import TEXT, gumbel
from chroma_models.types import Sampling

SEED, TEMPERATURE, FIRST = "chroma_seed", "chroma_temperature", "chroma_first"


def noise_args(sampling: Sampling, first: int) -> dict[str, Any] | None:
    """SamplingParams.extra_args of a turn whose next token has index first; None for a greedy one."""
    if sampling.text_temperature <= 0:
        return None
    return {SEED: sampling.seed, TEMPERATURE: sampling.text_temperature, FIRST: first}


@dataclass(frozen=True)
class Noise:
    seed: int
    temperature: float
    first: int

    @classmethod
    def of(cls, params: SamplingParams) -> "Noise | None":
        extra = params.extra_args or {}
        return cls(extra[SEED], extra[TEMPERATURE], extra[FIRST]) if SEED in extra else None


def add_noise(logits: Tensor, drawing: list[tuple[int, int, Noise]]) -> Tensor:
    """logits float32 [rows, vocab], changed in place; drawing holds (row, tokens already made, noise)."""
    device = logits.device
    rows = torch.tensor([row for row, _, _ in drawing], device=device)
    seeds = torch.tensor([noise.seed for _, _, noise in drawing], device=device)
    indices = torch.tensor([noise.first + made for _, made, noise in drawing], device=device)
    temperatures = torch.tensor([noise.temperature for _, _, noise in drawing], dtype=torch.float32, device=device)
    book = torch.tensor([TEXT], device=device)
    scaled = logits[rows] / temperatures.clamp(min=1e-6)[:, None]
    logits[rows] = scaled + gumbel(seeds, indices, book, logits.shape[-1])[:, 0]
    return logits


class TextNoise(LogitsProcessor):
    """For vLLM's first model runner: state by batch row, moved about by vLLM."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._drawing: dict[int, tuple[Noise, list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        def state(params: SamplingParams, _: Any, made: list[int]) -> tuple[Noise, list[int]] | None:
            noise = Noise.of(params)
            return None if noise is None else (noise, made)  # vLLM keeps the list up to date

        process_dict_updates(self._drawing, batch_update, state)

    def apply(self, logits: Tensor) -> Tensor:
        if not self._drawing:
            return logits
        return add_noise(logits, [(row, len(made), noise) for row, (noise, made) in self._drawing.items()])


class RunnerV2TextNoise(RunnerV2LogitsProcessor):
    """For vLLM's second model runner: state by request slot, rows in a new order each step."""

    def __init__(self, vllm_config: Any, req_states: LogitsProcRequestState) -> None:
        self._prompt_lengths = req_states.prompt_len
        self._drawing: dict[int, Noise] = {}

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        noise = Noise.of(sampling_params)
        if noise is None:
            self._drawing.pop(req_idx, None)
            return False
        self._drawing[req_idx] = noise
        return True

    def apply(self, logits: Tensor, ctx: LogitsContext) -> Tensor:
        slots, lengths = ctx.idx_mapping_np.tolist(), ctx.seq_lens_upper_bound_np.tolist()
        drawing = [
            (row, lengths[row] - int(self._prompt_lengths.np[slot]), self._drawing[slot])
            for row, slot in enumerate(slots)  # one row per request: there is no speculative decoding
            if slot in self._drawing
        ]
        return add_noise(logits, drawing) if drawing else logits
