"""Company for vLLM's steps: a crowd of realtime requests steps together, no more often than it need.

Left alone, the engine core steps as fast as it can, so requests that begin one after another each run nearly alone, and
a step of one costs almost what a step of thirty does. Here a step waits until step_interval_s has passed since the last
one, as long as every request is a realtime one that has its first token, and there are enough of them for a step to be
worth sharing. A new request, or one that ends, is taken at once, for the wait is a wait on the core's own queue.

The core's loop has no public place for this: the version of vLLM is pinned, and a test holds the wrapped method to its
contract. Where vLLM keeps batches in flight (asynchronous scheduling, pipelines) a wait would hold their tokens back,
so nothing waits there.
"""

import queue
import sys
import time
from typing import Any

from chroma_models.types import FAST_PRIORITY

CORE = "vllm.v1.engine.core"
COMPANY, INTERVAL_S = "chroma_company", "chroma_step_interval_s"  # in vLLM's additional_config


def install() -> None:
    """In the engine core's process, where its module is being used when plugins load; elsewhere nothing happens."""
    core = sys.modules.get(CORE)
    if core is not None and not hasattr(core.EngineCoreProc, "unpaced_step"):
        core.EngineCoreProc.unpaced_step = core.EngineCoreProc._process_engine_step
        core.EngineCoreProc._process_engine_step = paced_step


def paced_step(core: Any) -> bool:
    """Instead of EngineCoreProc._process_engine_step: wait for the time or for a message, whichever comes first."""
    asked = core.vllm_config.additional_config
    last = getattr(core, "stepped_at", 0.0)
    left_s = last + asked.get(INTERVAL_S, 0.0) - time.monotonic()
    if left_s > 0 and not core.batch_queue and patient(core.scheduler, asked.get(COMPANY, 0)):
        try:
            core._handle_client_request(*core.input_queue.get(timeout=left_s))
        except queue.Empty:
            pass  # the time has come
        else:
            return False  # the loop asks again, now with the message's effect
    core.stepped_at = time.monotonic()
    return bool(core.unpaced_step())


def patient(scheduler: Any, company: int) -> bool:
    """Whether nobody would notice: enough requests run, all realtime with a token out, and none waits."""
    running = scheduler.running
    return (
        len(running) >= company
        and not scheduler.waiting
        and all(request.num_output_tokens and request.priority < FAST_PRIORITY for request in running)
    )
