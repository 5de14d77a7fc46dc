"""The queueing theory that the planner uses, in three formulas.

Callers are many and ask whenever they like, so questions arrive as a Poisson process. How many answers are in progress
is then known from their mean alone, however long each takes (Erlang's loss formula, which does not ask for a
distribution). A device does pieces of work one after another; what waits for it waits as in an M/M/1 queue, which is
pessimistic for steps that last equally long.
"""

import math
from collections.abc import Callable


def erlang_b(load: float, slots: int) -> float:
    """Share of calls that find all slots taken. load: calls a second times seconds of a call."""
    if load <= 0:
        return 0.0
    inverse = 1.0
    for number in range(1, slots + 1):
        inverse = 1.0 + inverse * number / load
        if math.isinf(inverse):
            return 0.0
    return 1.0 / inverse


def fewest(enough: Callable[[int], bool]) -> int:
    """The smallest number from 1 on that is enough, where every larger one is, too."""
    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def wait_s(busy: float, piece_s: float, share: float) -> float:
    """What a share of pieces do not wait longer than: P(wait > t) = busy * exp(-(1 - busy) * t / piece_s)."""
    if busy >= 1:
        return math.inf
    return max(0.0, piece_s / (1 - busy) * math.log(busy / (1 - share))) if busy > 0 else 0.0


def late_share(busy: float, piece_s: float, lead_s: float) -> float:
    """Share of pieces that wait longer than the lead of who plays them."""
    if busy >= 1:
        return 1.0
    return busy * math.exp(-(1 - busy) * lead_s / piece_s) if piece_s > 0 else 0.0


def piece_of(busy: float, waited_s: float, share: float) -> float:
    """The size of a piece that makes a share of pieces wait no longer than waited_s: wait_s the other way round."""
    growth = math.log(busy / (1 - share)) if 0 < busy < 1 else 0.0
    return max(0.0, waited_s) * (1 - busy) / growth if growth > 0 else 0.0
