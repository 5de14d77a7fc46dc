"""What callers do: how often they speak, how long they think, who interrupts, who hangs up, who reads slowly."""

import random
from dataclasses import dataclass
from typing import Literal

Ending = Literal["heard", "barge_in", "cancel", "hang_up"]
CUT_S = (0.5, 3.0)  # of an answer are played before it is cut short
STAY_S = 0.5  # shortest pause before a question
PACE = 0.4  # of real time, at which a slow reader reads


@dataclass(frozen=True)
class TurnPlan:
    """One question, and what becomes of its answer. Times in seconds."""

    think_s: float  # before it is asked; nothing after an answer that is interrupted by voice
    clip: int
    gain: float
    ending: Ending
    played_s: float  # of the answer, before it is cut short


@dataclass(frozen=True)
class Script:
    tenant: int
    slow: bool
    turns: tuple[TurnPlan, ...]
    seed: int


@dataclass(frozen=True)
class Behaviour:
    """All callers. Shares are 0..1, times are means in seconds; a reply is at most reply_s long."""

    turns: int = 4
    think_s: float = 3.0
    reply_s: float = 8.0
    barge_in: float = 0.1
    cancel: float = 0.05
    hang_up: float = 0.02
    slow: float = 0.05
    tenants: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.barge_in + self.cancel + self.hang_up > 1:
            raise ValueError("Shares of barge-in, cancel and hang-up add up to more than all turns: make them smaller.")

    def draw(self, rng: random.Random, clips: int) -> Script:
        """One caller: 1 to 2 * turns - 1 questions, as many as `turns` on average, if nothing ends them before."""
        count = rng.randint(1, 2 * self.turns - 1)
        turns: list[TurnPlan] = []
        while len(turns) < count and not (turns and turns[-1].ending == "hang_up"):
            turns.append(self._turn(rng, clips, last=len(turns) == count - 1))
        return Script(rng.randrange(self.tenants), rng.random() < self.slow, tuple(turns), rng.getrandbits(31))

    def _turn(self, rng: random.Random, clips: int, *, last: bool) -> TurnPlan:
        drawn = rng.random()
        ending: Ending = "heard"
        for share, name in ((self.barge_in, "barge_in"), (self.cancel, "cancel"), (self.hang_up, "hang_up")):
            if drawn < share:
                ending = name  # type: ignore[assignment]
                break
            drawn -= share
        if ending == "barge_in" and last:  # who interrupts has something to say
            ending = "cancel"
        think_s = STAY_S + rng.expovariate(1 / max(1e-6, self.think_s - STAY_S))
        return TurnPlan(think_s, rng.randrange(clips), rng.uniform(0.7, 1.0), ending, rng.uniform(*CUT_S))

    def session_s(self, question_s: float) -> float:
        """How long a conversation lasts on average on a server that answers at once."""
        cut = self.barge_in + self.cancel + self.hang_up
        return self.turns * (
            self.think_s + question_s + (1 - cut) * self.reply_s + cut * min(self.reply_s, sum(CUT_S) / 2)
        )
