"""One turn's reply as an engine writes it: what to read, how much may come, and where the steps wait."""

import asyncio
import time
from collections.abc import Sequence

from chroma_models.config import ReasonerConfig
from chroma_models.errors import InvalidRequest, TurnTimeout
from chroma_models.reasoner.prompts import Prompt, PromptBuilder
from chroma_models.types import Finished, FinishReason, TextStep, Turn, Usage

LONGEST_GAP_S = 0.25  # between two lists of a stream that is well ahead
GAP_PER_STEP_S = 0.02  # a step is 160 ms of speech, so this never lets a reader run dry


class Reply:
    """Lives in the event loop; the engine adds steps, one reader takes them.

    tokens     the prompt, then what has been spoken already
    first      the number of the first new step
    budget     steps that may still come; exhausted says why there are no more after them
    opened     monotonic seconds, when the slot was given; the first come are read first
    cancelled  set by the reader; an engine thread may look at it at any time
    """

    def __init__(
        self,
        turn: Turn,
        prompt: Prompt,
        after: Sequence[int],
        prompts: PromptBuilder,
        config: ReasonerConfig,
        im_end: int,
    ) -> None:
        if any(not 0 <= token < prompts.vocab for token in after):
            raise InvalidRequest("A token said to be spoken already is none of this Reasoner's.")
        self.turn, self.prompt = turn, prompt
        self.tokens = [*prompt.ids, *after]
        self.first = len(after)
        asked, room = turn.limits.max_text_tokens - self.first, config.max_model_len - len(self.tokens)
        self.budget = max(0, min(asked, room))
        self.exhausted: FinishReason = "positions" if room < asked else "max_text_tokens"
        if after and after[-1] == im_end:
            self.budget, self.exhausted = 0, "end_of_speech"
        self.cached_tokens = 0
        self.cancelled = False
        self.gone = asyncio.Event()  # the engine holds nothing of this reply any more
        self._im_end, self._config = im_end, config
        self._pieces = prompts.text_pieces(after)
        self._steps: list[TextStep] = []
        self._made = self._taken = 0
        self._end: Finished | Exception | None = None
        self._changed, self._ended = asyncio.Event(), asyncio.Event()
        self.opened = time.monotonic()
        self._timing: dict[str, float] = {}
        if self.budget == 0:
            self.finish()

    def open(self) -> None:
        """The turn has its slot: its time begins."""
        self.opened = time.monotonic()

    def add(self, token: int, row: bytes) -> None:
        """The next step. The token that ends the speech, or the budget, ends the reply."""
        if self._end is not None:
            return
        if self._made == 0:
            self._timing["reasoner.first_token"] = time.monotonic() - self.opened
        self._steps.append(TextStep(self.first + self._made, token, row, self._pieces.push(token)))
        self._made += 1
        if token == self._im_end:
            self.exhausted = "end_of_speech"
        if token == self._im_end or self._made == self.budget:
            self.finish()
        self._changed.set()

    @property
    def over(self) -> bool:
        return self._end is not None

    def finish(self) -> None:
        self._timing["reasoner.total"] = time.monotonic() - self.opened
        usage = Usage(len(self.tokens) - self.first, self.cached_tokens, self._made)
        self._close(Finished(self.exhausted, usage, self._timing))

    def fail(self, error: Exception) -> None:
        """End with an error, unless it has ended already. Steps already made are still delivered."""
        self._close(error)

    def _close(self, end: Finished | Exception) -> None:
        if self._end is None:
            self._end = end
        self._changed.set()
        self._ended.set()

    async def take(self) -> list[TextStep] | Finished:
        """Everything since the last take, or an empty list after idle_s. Raises what ended the turn, or TurnTimeout.

        The first step goes out alone; a reader that has many in hand gets the next ones in larger lists.
        """
        if self._taken and self._end is None:
            await _within(self._ended, min(LONGEST_GAP_S, GAP_PER_STEP_S * self._taken))
        if not self._steps and self._end is None:
            self._changed.clear()
            if not await _within(self._changed, self._patience_s()):
                self._check_time()
                return []
        if self._steps:
            steps, self._steps = self._steps, []
            self._taken += len(steps)
            return steps
        if isinstance(self._end, Exception):
            raise self._end
        return self._end or []

    def _patience_s(self) -> float:
        idle_s = self._config.idle_s or self._config.max_turn_s
        return max(0.001, min(idle_s, self._deadline() - time.monotonic()))

    def _deadline(self) -> float:
        longest = self._config.max_turn_s
        if self._made == 0:
            longest = min(longest, self._config.first_token_timeout_s)
        return self.opened + longest

    def _check_time(self) -> None:
        waited = time.monotonic() - self.opened
        if waited > self._config.max_turn_s:
            raise TurnTimeout(f"The turn outlived max_turn_s, {self._config.max_turn_s:g} s.")
        if self._made == 0 and waited > self._config.first_token_timeout_s:
            raise TurnTimeout(f"No first word within {self._config.first_token_timeout_s:g} s.")


async def _within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
