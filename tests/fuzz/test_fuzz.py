"""A short run of every fuzzed target; `make fuzz` is the long one."""

import pytest

from tests.fuzz.__main__ import ATHERIS, Outcome, drawn, fuzz

CASES = 600
REQUESTS = 150


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """All in one go: importing what is fuzzed takes longer than the cases."""
    return fuzz(ATHERIS, CASES, seed=20)


@pytest.mark.parametrize("target", ATHERIS)
def test_whatever_is_sent_has_a_result_or_a_typed_error(target: str, outcomes: dict[str, Outcome]) -> None:
    figures, fault = outcomes[target]
    assert not fault, fault
    assert figures["cases"] == CASES


def test_whatever_is_asked_has_a_documented_answer() -> None:
    figures, fault = drawn("http", REQUESTS)
    assert not fault, fault
    assert figures["cases"] >= REQUESTS
