"""openai-python: client.realtime.connect, server VAD at its defaults."""

import base64
import os
from importlib.metadata import version

from conversation import Conversation, report
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection


async def main() -> dict[str, str]:
    client = AsyncOpenAI(base_url=os.environ["CHROMA_URL"], api_key="none")
    conversation = Conversation()
    # "incomplete": as long as the server lets an answer be; random weights do not stop before.
    async with client.realtime.connect(model="chroma") as connection:
        await connection.session.update(session={"type": "realtime", "instructions": "Answer in one sentence."})
        return await conversation.hold(
            speak(connection, conversation),
            hear(connection, conversation),
            finished={"completed", "incomplete"},
            cut_short="cancelled",
        )


async def speak(connection: AsyncRealtimeConnection, conversation: Conversation) -> None:
    async for piece in conversation.microphone:
        await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())


async def hear(connection: AsyncRealtimeConnection, conversation: Conversation) -> None:
    async for event in connection:
        match event.type:
            case "response.created":
                conversation.begins()
            case "response.output_audio.delta":
                conversation.hears(base64.b64decode(event.delta))
            case "response.output_audio_transcript.delta":
                conversation.reads(event.delta)
            case "input_audio_buffer.speech_started":
                if conversation.replies:
                    conversation.is_interrupted()
            case "response.done":
                conversation.ends(event.response.status or "")
            case "error":
                conversation.errors.append(str(event.error))


report(version("openai"), main())
