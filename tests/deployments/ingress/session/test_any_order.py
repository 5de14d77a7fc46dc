"""Whatever a client, a microphone and the graph do, in whatever order: what must always hold."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from chroma_models.errors import InvalidRequest, StageUnavailable
from chroma_models.types import Admitted, Turn
from deployments.ingress.callers import Caller
from deployments.ingress.config import IngressConfig
from deployments.ingress.services import Services
from deployments.ingress.session.errors import SessionClosed
from deployments.ingress.session.events import Delta, Event, OutputDone, OutputStarted, ResponseDone, ResponseStarted
from deployments.ingress.session.items import FRAME_MS, Item, Reply, Words
from deployments.ingress.session.session import Session
from deployments.ingress.session.settings import Draw, SessionSettings, TurnDetection
from tests.deployments.ingress.conftest import DEFAULTS
from tests.deployments.ingress.scripted import FINGERPRINT, Scripted, chunk, finished

CHUNK_BYTES = 2 * 768  # 32 ms at 24 kHz


class SilentVad:
    """In the network's place: the test says what was heard."""

    def __init__(self) -> None:
        self.heard: Callable[[float], None] | None = None

    def stream(self, heard: Callable[[float], None]) -> "SilentVad":
        self.heard = heard
        return self

    def listen(self, samples: NDArray[np.int16]) -> None:
        pass

    async def caught_up(self) -> None:
        pass

    def close(self) -> None:
        self.heard = None


class Graph:
    """A turn's items come when the test lets them."""

    def __init__(self) -> None:
        self.let = asyncio.Semaphore(0)

    async def script(self, turn: Turn) -> AsyncGenerator[Any, None]:
        await self.let.acquire()
        yield Admitted(FINGERPRINT, 12)
        for first in range(0, 6, 2):
            await self.let.acquire()
            if turn.sampling.seed % 5 == 4:
                raise StageUnavailable("The Backbone was lost.", 1.0)
            yield chunk(first, 2, 6)
        await self.let.acquire()
        yield finished(6, "max_reply" if turn.sampling.seed % 3 == 1 else "end_of_speech")


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.told: list[Event] = []
        self.truncated: dict[str, int] = {}
        self.cancelled: dict[str, int] = {}  # how much had been told by then
        self.closed = False
        self.steps = 0

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)

    @initialize(create=st.booleans(), interrupt=st.booleans())
    def begin(self, create: bool, interrupt: bool) -> None:
        async def opened() -> None:
            self.graph, self.vad, self.speaker = Graph(), SilentVad(), Scripted()
            self.speaker.script = self.graph.script
            self.services = Services(self.speaker, IngressConfig(auth=False), DEFAULTS)
            self.services.vad = self.vad  # type: ignore[assignment]
            await self.services.voices.built_in()
            detection = TurnDetection(silence_duration_ms=64, create_response=create, interrupt_response=interrupt)
            settings = SessionSettings(turn_detection=detection)
            self.session = Session(self.services, Caller("public", "open"), settings)
            self.reader = self.loop.create_task(self.read())
            self.reading = asyncio.Event()
            self.reading.set()

        self.run(opened())

    async def read(self) -> None:
        async for event in self.session.events():
            self.told.append(event)
            await self.reading.wait()

    def tried(self, work: Callable[[], object]) -> None:
        """Whatever a client may not do raises what it did wrong, and only then."""
        try:
            work()
        except InvalidRequest as error:
            assert self.closed or not isinstance(error, SessionClosed)

    @rule(items=st.integers(0, 12), steps=st.integers(1, 20))
    def graph_goes_on(self, items: int, steps: int) -> None:
        async def turns() -> None:
            for _ in range(items):
                self.graph.let.release()
            for _ in range(steps):
                await asyncio.sleep(0)

        self.run(turns())

    @rule()
    def client_stops_or_starts_reading(self) -> None:
        self.reading.clear() if self.reading.is_set() else self.reading.set()

    @rule(speech=st.lists(st.sampled_from([0.0, 0.4, 1.0]), min_size=1, max_size=8))
    def microphone_hears(self, speech: list[float]) -> None:
        async def listened() -> None:
            for probability in speech:
                await self.session.append_audio(bytes(CHUNK_BYTES))
                if self.vad.heard is not None:
                    self.vad.heard(probability)

        if not self.closed:
            self.run(listened())

    @rule(pick=st.integers(0, 30), root=st.booleans())
    def client_writes(self, pick: int, root: bool) -> None:
        item = Item(f"mine_{pick}", "user", (Words("hello"),))
        self.tried(lambda: self.session.add_item(item, "root" if root else None))

    @rule(in_conversation=st.booleans(), seed=st.integers(0, 30))
    def client_asks(self, in_conversation: bool, seed: int) -> None:
        async def asked() -> None:
            own = replace(self.session.settings, draw=Draw(seed=seed))
            self.tried(lambda: self.session.respond(own, in_conversation=in_conversation))

        self.run(asked())

    @rule()
    def client_cancels(self) -> None:
        async def cancelled() -> None:
            with suppress(InvalidRequest):
                self.cancelled[self.session.cancel()] = len(self.told)

        self.run(cancelled())

    @rule(pick=st.integers(0, 9), end_ms=st.integers(0, 600))
    def client_truncates(self, pick: int, end_ms: int) -> None:
        if not self.session.items:
            return
        item = self.session.items[pick % len(self.session.items)]
        if any(isinstance(part, Reply) for part in item.parts) and not self.closed:
            self.truncated[item.id] = min(end_ms, self.truncated.get(item.id, end_ms))
        self.tried(lambda: self.session.truncate(item.id, 0, end_ms))

    @rule(pick=st.integers(0, 9))
    def client_deletes(self, pick: int) -> None:
        if self.session.items:
            item = self.session.items[pick % len(self.session.items)]
            self.tried(lambda: self.session.delete_item(item.id))

    @rule()
    def client_commits(self) -> None:
        self.tried(self.session.commit)

    @rule()
    def client_clears(self) -> None:
        self.tried(self.session.clear)

    @rule(listens=st.booleans())
    def client_changes_its_mind(self, listens: bool) -> None:
        detection = TurnDetection(silence_duration_ms=64) if listens else None
        self.tried(lambda: self.session.configure(replace(self.session.settings, turn_detection=detection)))

    @precondition(lambda self: self.steps > 15)
    @rule()
    def client_goes(self) -> None:
        self.closed = True
        self.run(self.session.close())

    @invariant()
    def a_step_is_over(self) -> None:
        self.steps += 1

    @invariant()
    def every_response_is_told_in_order(self) -> None:
        stage: dict[str, str] = {}
        running: set[str] = set()
        for event in self.told:
            match event:
                case ResponseStarted(response):
                    assert response.id not in stage
                    stage[response.id] = "started"
                    if response.in_conversation:
                        assert not running
                        running.add(response.id)
                case OutputStarted(response):
                    assert stage[response.id] == "started"
                    stage[response.id] = "output"
                case Delta(response):
                    assert stage[response.id] == "output"
                case OutputDone(response):
                    assert stage[response.id] == "output"
                    stage[response.id] = "said"
                case ResponseDone(response, status, reason, error, output):
                    assert stage[response.id] in ("started", "said")
                    assert bool(output) == (stage[response.id] == "said")
                    assert (error is not None) == (status == "failed")
                    assert (reason is not None) == (status in ("cancelled", "incomplete"))
                    stage[response.id] = "done"
                    running.discard(response.id)

    @invariant()
    def nothing_is_said_after_a_cancel(self) -> None:
        for response_id, told in self.cancelled.items():
            assert not any(isinstance(e, Delta) and e.response.id == response_id for e in self.told[told:])

    @invariant()
    def history_is_what_was_heard(self) -> None:
        frames: dict[str, int] = {}
        for event in self.told:
            if isinstance(event, Delta):
                assert event.start_frame == frames.get(event.item_id, 0)
                frames[event.item_id] = event.start_frame + event.frames
        for item in self.session.items if hasattr(self, "session") else ():
            if item.role != "assistant":
                continue
            heard = frames.get(item.id, 0)
            if item.id in self.truncated:
                heard = min(heard, self.truncated[item.id] // FRAME_MS)
            pieces = [p for e in self.told if isinstance(e, Delta) and e.item_id == item.id for p in e.pieces]
            said = "".join(part.text for part in item.parts if isinstance(part, Reply))
            assert said == "".join(piece.text for piece in pieces if piece.frame < heard)

    def teardown(self) -> None:
        async def ended() -> None:
            self.reading.set()
            await self.session.close()
            await self.reader
            await self.speaker.all_closed()
            await self.services.close()
            with self.services.place():
                pass
            left = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait(left, timeout=1) if left else None
            assert not [task for task in left if not task.done()]

        if hasattr(self, "session"):
            self.run(ended())
        self.loop.close()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=50)
