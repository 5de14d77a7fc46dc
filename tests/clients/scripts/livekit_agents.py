"""livekit-agents: an AgentSession over openai.realtime.RealtimeModel, with an audio input and output of its own."""

import asyncio
import os
import time
from importlib.metadata import version

from conversation import RATE_HZ, Conversation, Microphone, report
from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.voice import ConversationItemAddedEvent, ErrorEvent
from livekit.agents.voice.io import AudioInput, AudioOutput, AudioOutputCapabilities
from livekit.plugins import openai


class Ear(AudioInput):
    """What the agent hears: the user's microphone."""

    def __init__(self, microphone: Microphone) -> None:
        super().__init__(label="microphone")
        self._pieces = aiter(microphone)

    async def __anext__(self) -> rtc.AudioFrame:
        piece = await anext(self._pieces)
        return rtc.AudioFrame(piece, RATE_HZ, 1, len(piece) // 2)


class Speakers(AudioOutput):
    """Plays at the pace of speech, and tells the conversation what it gets."""

    def __init__(self, conversation: Conversation) -> None:
        super().__init__(label="speakers", capabilities=AudioOutputCapabilities(pause=False), sample_rate=RATE_HZ)
        self._conversation = conversation
        self._began_at = 0.0
        self._audio_s = 0.0
        self._end: asyncio.TimerHandle | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self._audio_s:
            self._conversation.begins()
            self._began_at = time.time()
            self.on_playback_started(created_at=self._began_at)
        self._audio_s += frame.duration
        self._conversation.hears(bytes(frame.data))

    def flush(self) -> None:
        super().flush()
        if self._audio_s:
            left_s = self._began_at + self._audio_s - time.time()
            self._end = asyncio.get_running_loop().call_later(max(0.0, left_s), self._finish, False)

    def clear_buffer(self) -> None:
        if self._audio_s:
            self._finish(True)

    def _finish(self, interrupted: bool) -> None:
        if self._end is not None:
            self._end.cancel()
        played_s = min(self._audio_s, time.time() - self._began_at)
        self._end, self._audio_s = None, 0.0
        self.on_playback_finished(playback_position=played_s, interrupted=interrupted)


async def main() -> dict[str, str]:
    conversation = Conversation()
    model = openai.realtime.RealtimeModel(model="chroma", base_url=os.environ["CHROMA_URL"], api_key="none")
    session: AgentSession[None] = AgentSession(llm=model, vad=None, aec_warmup_duration=None)
    session.input.audio = Ear(conversation.microphone)
    session.output.audio = Speakers(conversation)

    @session.on("conversation_item_added")
    def on_item(event: ConversationItemAddedEvent) -> None:
        if event.item.type == "message" and event.item.role == "assistant":
            conversation.reads(event.item.text_content or "")
            conversation.ends("interrupted" if event.item.interrupted else "played")
            if event.item.interrupted:
                conversation.is_interrupted()

    @session.on("error")
    def on_error(event: ErrorEvent) -> None:
        conversation.errors.append(str(event.error))

    await session.start(Agent(instructions="Answer in one sentence."))
    try:
        return await conversation.hold(finished={"played"}, cut_short="interrupted")
    finally:
        await session.aclose()
        await model.aclose()


report(version("livekit-agents"), main())
