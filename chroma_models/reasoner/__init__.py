"""The Reasoner: hears and reads the conversation, writes the reply one text step at a time."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import ReasonerConfig, TorchConfig
from chroma_models.engine.step_log import StepLog
from chroma_models.types import Admitted, Finished, TextStep, Turn


class ReasonerEngine(Protocol):
    """What vLLM and plain torch both do. Used from one event loop."""

    fingerprint: str
    config: ReasonerConfig
    ran: StepLog

    @property
    def requests_running(self) -> int:
        """Turns that hold a slot."""
        ...

    async def start(self) -> None:
        """Load, and prove that it works. Raises StageUnavailable or CheckpointError."""
        ...

    async def stop(self) -> None: ...

    def steps(
        self, turn: Turn, after: Sequence[int] = ()
    ) -> AsyncGenerator[Admitted | list[TextStep] | Finished, None]:
        """Admitted once a slot is held, then lists of new text steps (empty: a keep-alive), then Finished.

        after   tokens the turn has already spoken: they are read, not spoken again, and numbering goes on behind them
        Raises PromptTooLong, InvalidRequest, Overloaded, TurnTimeout, StageUnavailable. Closing the generator ends the
        turn.
        """
        ...

    async def warm(self, turn: Turn) -> None:
        """Best effort, while the user still speaks: read ahead what the turn so far already settles.

        turn    as it would be if the user stopped now; its last clip is unfinished
        Changes no word of any reply. Raises nothing about the turn itself.
        """
        ...

    def check(self) -> None:
        """Raises StageUnavailable when the engine died, or makes no progress with turns running."""
        ...


def make_reasoner(
    checkpoint: Checkpoint, config: ReasonerConfig, torch: TorchConfig, stat_loggers: list[Any] | None = None
) -> ReasonerEngine:
    """The engine that the settings name. stat_loggers are vLLM's stat logger factories; the torch engine has none."""
    if config.engine == "vllm":
        from chroma_models.reasoner.vllm_engine import VllmReasoner

        return VllmReasoner(checkpoint, config, torch, stat_loggers)
    from chroma_models.reasoner.torch_engine import TorchReasoner

    return TorchReasoner(checkpoint, config, torch)
