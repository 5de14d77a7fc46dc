"""The state machines of the tests, for longer. A case is one step: a turn that comes, a client that cancels."""

import time
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, run_state_machine_as_test

from tests.chroma_models.engine.test_slots import AnyTurns
from tests.deployments.ingress.session.test_any_order import AnyOrder

STEPS = 50
MACHINES: dict[str, type[RuleBasedStateMachine]] = {"sessions": AnyOrder, "slots": AnyTurns}


def run(name: str, cases: int) -> dict[str, Any]:
    """Figures as the other targets have them. Raises what hypothesis found."""
    done, longest_s, began = 0, 0.0, time.process_time()

    class Counted(MACHINES[name]):  # type: ignore[misc]
        @invariant()
        def counted(self) -> None:
            nonlocal done, longest_s, began
            now = time.process_time()
            done, longest_s, began = done + 1, max(longest_s, now - began), now

    while done < cases:
        examples = max(1, (cases - done) // STEPS)
        chosen = settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(Counted, settings=chosen)
    return {"cases": done, "longest_cpu_s": round(longest_s, 3)}
