"""The worker side of the hidden-state tap: the final hidden row behind every sampled token leaves with the token.

vLLM computes logits once a step, from one row per request in the order of its output's req_ids, outside CUDA graphs.
Those rows are kept, copied to the host beside the forward pass, and sent as the step's pooler output, which the
scheduler hands on for generating requests too. Neither contract is public: the version of vLLM is pinned, and the
engine proves the tap at every start.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.platforms import current_platform
from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker


class HiddenRowWorker(PlatformWorker):
    _rows: Tensor | None = None  # of the step under way

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        model = self.model_runner.get_model()
        inner = model.compute_logits

        def compute_logits(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._rows is None:  # the sampled rows come first in a step
                self._rows = hidden_states
            return inner(hidden_states, *args, **kwargs)

        model.compute_logits = compute_logits

    def execute_model(self, scheduler_output: Any) -> Any:
        self._rows = None
        return super().execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> Any:
        output = super().sample_tokens(grammar_output)
        rows, self._rows = self._rows, None
        if rows is None or output is None:
            return output
        host = rows.to("cpu", non_blocking=True)
        copied = torch.cuda.Event() if rows.is_cuda else None  # type: ignore[no-untyped-call]
        if copied is not None:
            copied.record()

        def attach(output: ModelRunnerOutput) -> ModelRunnerOutput:
            if copied is not None:
                copied.synchronize()
            return attach_rows(output, host)

        if not isinstance(output, AsyncModelRunnerOutput):
            return attach(output)
        get_output = output.get_output
        output.get_output = lambda: attach(get_output())  # resolved when the engine asks for the step
        return output


def attach_rows(output: ModelRunnerOutput, rows: Tensor) -> ModelRunnerOutput:
    """rows [requests, hidden]; a request whose prompt is still being read sampled nothing and gets no row."""
    if output.req_ids:  # the empty output is one shared object
        if rows.shape[0] != len(output.req_ids):
            raise RuntimeError(f"{rows.shape[0]} hidden rows for {len(output.req_ids)} requests")
        output.pooler_output = [rows[i] if tokens else None for i, tokens in enumerate(output.sampled_token_ids)]
    return output
