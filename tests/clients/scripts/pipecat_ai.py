"""pipecat-ai: a pipeline of OpenAIRealtimeLLMService between a microphone and speakers, server VAD at its defaults."""

import asyncio
import os
from importlib.metadata import version

from conversation import Conversation, report
from pipecat.frames.frames import (
    CancelFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    OutputAudioRawFrame,
    StartFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

PARAMS = TransportParams(
    audio_in_enabled=True, audio_out_enabled=True, audio_in_sample_rate=24_000, audio_out_sample_rate=24_000
)


class Microphone(BaseInputTransport):
    def __init__(self, conversation: Conversation) -> None:
        super().__init__(PARAMS)
        self._conversation = conversation

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)
        self._listening = self.create_task(self._listen())

    async def cancel(self, frame: CancelFrame) -> None:
        await self.cancel_task(self._listening)
        await super().cancel(frame)

    async def _listen(self) -> None:
        async for piece in self._conversation.microphone:
            await self.push_audio_frame(InputAudioRawFrame(audio=piece, sample_rate=24_000, num_channels=1))


class Speakers(BaseOutputTransport):
    """Plays at the pace of speech, and tells the conversation what passes."""

    def __init__(self, conversation: Conversation) -> None:
        super().__init__(PARAMS)
        self._conversation = conversation

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        self._conversation.hears(frame.audio)
        await asyncio.sleep(frame.num_frames / frame.sample_rate)
        return True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        match frame:
            case LLMFullResponseStartFrame():
                self._conversation.begins()
            case LLMFullResponseEndFrame():
                self._conversation.ends("end")
            case TTSTextFrame():
                self._conversation.reads(frame.text)
            case InterruptionFrame():
                if self._conversation.replies:
                    self._conversation.is_interrupted()


async def main() -> dict[str, str]:
    conversation = Conversation()
    llm = OpenAIRealtimeLLMService(
        api_key="none",
        base_url=os.environ["CHROMA_URL"].replace("http", "ws", 1) + "/realtime",
        settings=OpenAIRealtimeLLMService.Settings(model="chroma", system_instruction="Answer in one sentence."),
    )
    user, assistant = LLMContextAggregatorPair(LLMContext())
    pipeline = Pipeline([Microphone(conversation), user, llm, Speakers(conversation), assistant])
    worker = PipelineWorker(pipeline, params=PipelineParams(audio_in_sample_rate=24_000))

    @worker.event_handler("on_pipeline_error")
    async def on_error(_: PipelineWorker, frame: ErrorFrame) -> None:
        conversation.errors.append(frame.error)

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        return await conversation.hold(finished={"end"}, cut_short="end")
    finally:
        await runner.cancel()
        await running


report(version("pipecat-ai"), main())
