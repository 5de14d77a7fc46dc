"""The echo benchmark hears all that the ingress alone has to say, over each protocol."""

import asyncio

import pytest

from loadtest.echo_bench import echoing, measure


@pytest.mark.slow
def test_every_piece_is_heard_and_every_question_answered() -> None:
    with echoing(4) as server:
        for protocol in ("websocket", "grpc"):
            for listens in (False, True):
                run = asyncio.run(measure(server, protocol, 3, listens, 4.0))
                assert run["errors"] == []
                assert run["heard_s"] == run["heard_wanted_s"] == 3 * 4.0
                assert run["down_ms"]["n"] == 3 * 13  # the last list has half as many
                assert run["round_trip_ms"]["n"] == 3 * 5
                assert run["down_ms"]["min"] > 0
