"""openai-agents: RealtimeRunner with its own defaults (semantic VAD, transcription, tracing)."""

import os
from importlib.metadata import version

from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession
from conversation import Conversation, report


async def main() -> dict[str, str]:
    runner = RealtimeRunner(RealtimeAgent(name="Chroma", instructions="Answer in one sentence."))
    url = os.environ["CHROMA_URL"].replace("http", "ws", 1) + "/realtime?model=chroma"
    conversation = Conversation()
    async with await runner.run(model_config={"api_key": "none", "url": url}) as session:
        return await conversation.hold(
            speak(session, conversation), hear(session, conversation), finished={"agent_end"}, cut_short="agent_end"
        )


async def speak(session: RealtimeSession, conversation: Conversation) -> None:
    async for piece in conversation.microphone:
        await session.send_audio(piece)


async def hear(session: RealtimeSession, conversation: Conversation) -> None:
    async for event in session:
        match event.type:
            case "agent_start":
                conversation.begins()
            case "audio":
                conversation.hears(event.audio.data)
            case "raw_model_event" if event.data.type == "transcript_delta":
                conversation.reads(event.data.delta)
            case "audio_interrupted":
                conversation.is_interrupted()
            case "agent_end":
                conversation.ends(event.type)
            case "error":
                conversation.errors.append(str(event.error))


report(version("openai-agents"), main())
