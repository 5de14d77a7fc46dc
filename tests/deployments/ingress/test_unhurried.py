"""A slow client gets every frame once, and the stages behind rest meanwhile."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from chroma_models.errors import Lost, StageUnavailable, TurnTimeout
from chroma_models.stages.survival import WINDOW_FRAMES
from chroma_models.types import Admitted, AudioChunk, EncodedVoice, Finished, Progress, Sampling, Turn
from deployments.ingress.config import IngressConfig
from deployments.ingress.turns import watch
from tests.deployments.ingress.conftest import Start
from tests.deployments.ingress.scripted import FINGERPRINT, chunk, finished, until


class Speaker:
    """Speaks `total` frames in lists of four, from where progress ends; `overlap` frames come twice."""

    def __init__(self, total: int, overlap: int = 0, fails_at: int | None = None) -> None:
        self.total, self.overlap, self.fails_at = total, overlap, fails_at
        self.open = self.made = 0
        self.resumed: list[Progress] = []

    async def speak(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[Any, None]:
        self.open += 1
        try:
            if progress is not None:
                assert [frame.index for frame in progress.frames] == list(range(len(progress.frames)))
                self.resumed.append(progress)
            yield Admitted(FINGERPRINT)
            at = max(0, len(progress.frames) - self.overlap) if progress else 0
            while at < self.total:
                if self.fails_at is not None and at >= self.fails_at:
                    raise StageUnavailable("lost", 1.0)
                await asyncio.sleep(0)
                count = min(4, self.total - at)
                yield with_rows(chunk(at, count, self.total))
                at += count
                self.made += count
            yield finished(self.total)
        finally:
            self.open -= 1

    async def encode_voice(self, pcm: bytes) -> bytes:
        return bytes(16 * 50)


def with_rows(plain: AudioChunk) -> AudioChunk:
    steps = [frame.step and replace(frame.step, row=b"r") for frame in plain.frames]
    frames = (replace(frame, step=step) for frame, step in zip(plain.frames, steps, strict=True))
    return AudioChunk(tuple(frames), plain.pcm)


def turn(pace: Any = "realtime") -> Turn:
    return Turn("t", "a", (), EncodedVoice("", b"", ""), Sampling(0), pace=pace)


CONFIG = IngressConfig(pause_above_s=1.0, resume_below_s=0.4)


async def heard(speaker: Speaker, config: IngressConfig = CONFIG, pause_s: float = 0.002) -> list[Any]:
    got = []
    async with aclosing(watch(speaker, turn(), config)) as items:
        async for item in items:
            got.append(item)
            await asyncio.sleep(pause_s)
    return got


def frames(items: list[Any]) -> list[int]:
    return [frame.index for item in items if isinstance(item, AudioChunk) for frame in item.frames]


@pytest.mark.parametrize("overlap", [0, 3])
async def test_a_slow_client_gets_every_frame_once_over_several_pauses(overlap: int) -> None:
    speaker = Speaker(200, overlap)
    got = await heard(speaker)
    assert frames(got) == list(range(200))
    pcm = b"".join(item.pcm for item in got if isinstance(item, AudioChunk))
    assert pcm == chunk(0, 200, 200).pcm
    assert isinstance(got[0], Admitted)
    assert sum(isinstance(item, Admitted) for item in got) == 1
    assert isinstance(got[-1], Finished)
    assert len(speaker.resumed) >= 3
    assert all(progress.fingerprint == FINGERPRINT for progress in speaker.resumed)
    assert speaker.open == 0


async def test_while_much_waits_nothing_is_held_behind() -> None:
    speaker = Speaker(200)
    async with aclosing(watch(speaker, turn(), CONFIG)) as items:
        await anext(items)
        await until(lambda: speaker.open == 0)
        assert speaker.resumed == []
        for _ in range(5):
            await anext(items)
    assert speaker.open == 0


async def test_who_keeps_up_is_never_paused_and_fast_work_neither() -> None:
    speaker = Speaker(200)
    got = await heard(speaker, pause_s=0)
    assert frames(got) == list(range(200))
    assert speaker.resumed == []
    async with aclosing(watch(speaker, turn("fast"), CONFIG)) as items:
        assert frames([item async for item in items]) == list(range(200))
    assert speaker.resumed == []


async def test_an_error_comes_after_the_audio_before_it() -> None:
    speaker = Speaker(200, fails_at=12)
    got: list[Any] = []

    async def listen() -> None:
        async with aclosing(watch(speaker, turn(), CONFIG)) as items:
            async for item in items:
                got.append(item)
                await asyncio.sleep(0.002)

    with pytest.raises(StageUnavailable):
        await listen()
    assert frames(got) == list(range(12))


async def test_a_client_that_takes_nothing_for_too_long_is_given_up() -> None:
    speaker = Speaker(200)
    async with aclosing(watch(speaker, turn(), CONFIG.model_copy(update={"max_send_s": 0.05}))) as items:
        await anext(items)
        await until(lambda: speaker.open == 0)
        await asyncio.sleep(0.2)
        with pytest.raises(TurnTimeout):
            async for _ in items:
                pass
    assert speaker.resumed == []


async def test_old_frames_are_kept_without_their_rows() -> None:
    """What is sent to resume a long reply stays small."""
    speaker = Speaker(WINDOW_FRAMES + 200)
    got = await heard(speaker, pause_s=0.0005)
    assert frames(got) == list(range(WINDOW_FRAMES + 200))
    kept = speaker.resumed[-1].frames
    assert len(kept) > WINDOW_FRAMES + 10
    old, new = kept[:-WINDOW_FRAMES], kept[-WINDOW_FRAMES:]
    assert {frame.step.row for frame in old if frame.step} == {b""}
    assert {frame.step.row for frame in new if frame.step} == {b"r"}


class Mortal(Speaker):
    """Lost after so many frames each time, as a Codec's replica that is killed."""

    def __init__(self, total: int, *lives: int) -> None:
        super().__init__(total)
        self.lives, self.asked = list(lives), list[Turn]()

    async def speak(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[Any, None]:
        self.asked.append(turn)
        left = self.lives.pop(0) if self.lives else None
        async with aclosing(super().speak(turn, progress)) as items:
            async for item in items:
                if left is not None and left <= 0:
                    raise Lost("The Codec was lost.", 1.0)
                if isinstance(item, AudioChunk) and left is not None:
                    left -= len(item.frames)
                yield item


@pytest.mark.parametrize("pace", ["realtime", "fast"])
@pytest.mark.parametrize("lives", [(8,), (4, 12), (40, 0, 8), (0,)])
async def test_a_lost_codec_is_not_heard(pace: Any, lives: tuple[int, ...]) -> None:
    speaker = Mortal(100, *lives)
    got = []
    async with aclosing(watch(speaker, turn(pace), CONFIG)) as items:
        async for item in items:
            got.append(item)
    assert frames(got) == list(range(100))
    assert b"".join(item.pcm for item in got if isinstance(item, AudioChunk)) == chunk(0, 100, 100).pcm
    assert got[-1].losses == sum(life > 0 for life in lives)
    assert speaker.open == 0


async def test_a_turn_that_loses_a_third_codec_ends() -> None:
    speaker, got = Mortal(100, 8, 8, 8, 8), list[Any]()

    async def listen() -> None:
        async with aclosing(watch(speaker, turn(), CONFIG)) as items:
            async for item in items:
                got.append(item)

    with pytest.raises(StageUnavailable, match="loss of this turn"):
        await listen()
    assert frames(got) == list(range(24))
    assert [asked.losses for asked in speaker.asked] == [0, 1, 2]


async def test_of_a_client_that_reads_nothing_little_waits_in_the_kernel(start: Start) -> None:
    """Else a reply would be made to its end for nobody, and the pause come too late."""
    speaker = Speaker(1_000)
    service = await start(speaker, pause_above_s=1.0, resume_below_s=0.4)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with raw:
        raw.connect(("127.0.0.1", service.server.port))
        body = json.dumps(
            {
                "model": "chroma",
                "messages": [{"role": "user", "content": "hello"}],
                "modalities": ["text", "audio"],
                "audio": {"voice": "default", "format": "pcm16"},
                "stream": True,
                "chroma": {"max_reply_s": 60.0},
            }
        ).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        raw.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await until(lambda: speaker.made > 0 and speaker.open == 0)
        print(speaker.made)
        assert speaker.made * 5_120 < 600_000
