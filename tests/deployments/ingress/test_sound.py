"""What a reply sounded like, and how its listener fared, as the server knows it."""

import io
import logging
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from chroma_models.types import FRAME_SAMPLES, Admitted, AudioChunk, Frame
from deployments.ingress.playback import MOST_GAPS, Playback
from deployments.ingress.sanity import Fault, SanityLimits, Sound
from tests.deployments.ingress.conftest import Start
from tests.deployments.ingress.scripted import FINGERPRINT, Scripted, chunk, finished, items, tone
from tests.deployments.ingress.test_logs import lines, read

__all__ = ["lines"]

LIMITS = SanityLimits(max_silence_s=0.8, max_loop_s=0.8)
LOUD = tone(FRAME_SAMPLES, 24_000)
QUIET = LOUD * 1e-4


def frame(index: int, code: int) -> Frame:
    return Frame(index, np.full(8, code, "<i2").tobytes(), None)


def faults(samples: list[NDArray[np.float32]], codes: list[int], at_once: int) -> tuple[Fault, ...]:
    """Of a reply that comes so many frames at once."""
    sound = Sound(LIMITS)
    for i in range(0, len(codes), at_once):
        pcm = np.concatenate(samples[i : i + at_once]).astype("<f4").tobytes()
        sound.add([frame(i + k, code) for k, code in enumerate(codes[i : i + at_once])], pcm)
    return sound.faults


@pytest.mark.parametrize("at_once", [1, 4, 100])
@pytest.mark.parametrize(
    ("samples", "codes", "found"),
    [
        ([LOUD] * 40, list(range(40)), ()),
        ([LOUD] * 5 + [QUIET] * 10 + [LOUD] * 5, list(range(20)), ()),
        ([LOUD] * 5 + [QUIET] * 11 + [LOUD] * 5, list(range(21)), ("silence",)),
        ([LOUD, QUIET] * 20, list(range(40)), ()),  # never silent for long
        ([LOUD] * 23, [*range(11), *[7] * 12], ("loop",)),
        ([LOUD] * 40, [1, 2, 3] * 13 + [4], ("loop",)),
        ([LOUD] * 20, [0, 1, 2, 3, 4, 2, 6, 1, 8, 9] * 2, ()),  # a few frames come again, in no order
        ([LOUD] * 10 + [QUIET] * 20, [*range(10), *[5] * 20], ("silence",)),  # repeats itself, which is no other fault
        ([LOUD] * 9 + [LOUD * 3], list(range(10)), ("clipping",)),
        ([LOUD * 3] * 20, [3] * 20, ("loop", "clipping")),
    ],
)
def test_faults_are_found_and_nothing_else(
    samples: list[NDArray[np.float32]], codes: list[int], found: tuple[Fault, ...], at_once: int
) -> None:
    assert faults(samples, codes, at_once) == found


def test_a_loop_is_one_however_long_its_period() -> None:
    for period in (1, 2, 7, 25):
        head = list(range(100, 130))
        loop = [i % period for i in range(period + 11)]  # repeats for 11 frames: longer than 0.8 s
        assert faults([LOUD] * (len(head) + len(loop)), head + loop, 1) == ("loop",), period
        assert faults([LOUD] * (len(head) + len(loop) - 1), head + loop[:-1], 1) == (), period


def test_a_listener_who_has_nothing_to_play_is_noticed() -> None:
    played = Playback()
    for at, seconds in [(1.0, 0.08), (1.05, 0.08), (1.2, 0.08), (1.22, 0.32), (2.0, 0.08)]:
        played.add(at, seconds)
    assert played.underruns == 2
    assert played.underrun_s == pytest.approx((1.2 - 1.16) + (2.0 - 1.6))
    assert played.gaps_s == pytest.approx([0.05, 0.15, 0.02, 0.78])
    for _ in range(2 * MOST_GAPS):
        played.add(2.0, 0.08)
    assert len(played.gaps_s) == MOST_GAPS


async def test_the_line_of_a_reply_says_how_it_went_and_not_what_was_said(start: Start, lines: io.StringIO) -> None:
    speaker = Scripted()
    stuck = [chunk(i, 1, 30) for i in range(30)]
    same = [replace(one, frames=(replace(one.frames[0], codes=bytes(16)),)) for one in stuck]
    clipped = [AudioChunk(one.frames, np.ones(FRAME_SAMPLES, "<f4").tobytes()) for one in same]
    speaker.by_word["stuck"] = items(Admitted(FINGERPRINT), *clipped, finished(30))
    service = await start(speaker, sanity={"max_loop_s": 2.0})
    for word in ("stuck", "hello"):
        answer = await service.ask(messages=[{"role": "user", "content": word}])
        assert answer.status_code == 200
    told = [line for line in read(lines) if line["logger"] == "deployments.ingress.reply_log"]
    assert [line["faults"] for line in told] == [["loop", "clipping"], []]
    assert all(line["outcome"] == "completed" and line["audio_s"] > 0 and line["request_id"] for line in told)
    assert "sunny" not in lines.getvalue()
    assert logging.getLogger("deployments.ingress.reply_log").isEnabledFor(logging.INFO)
