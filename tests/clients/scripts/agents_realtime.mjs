// @openai/agents-realtime: a RealtimeSession over its WebSocket transport, with its own defaults.
import { RealtimeAgent, RealtimeSession } from "@openai/agents-realtime";
import { Conversation, versionOf } from "./conversation.mjs";

const url = `${process.env.CHROMA_URL.replace("http", "ws")}/realtime?model=chroma`;
const agent = new RealtimeAgent({ name: "Chroma", instructions: "Answer in one sentence." });
const session = new RealtimeSession(agent, { transport: "websocket", model: "chroma" });
const conversation = new Conversation();

session.on("agent_start", () => conversation.begins());
session.on("audio", (event) => conversation.hears(event.data.byteLength));
session.on("audio_interrupted", () => conversation.isInterrupted());
session.on("agent_end", (_context, _agent, words) => {
  conversation.reads(words);
  conversation.ends("agent_end");
});
session.on("error", (event) => conversation.errors.push(event.error));

await session.connect({ apiKey: "none", url });
const stop = conversation.microphone((piece) => session.sendAudio(piece.buffer));
await conversation.hold(versionOf("@openai/agents-realtime"), { finished: ["agent_end"], cutShort: "agent_end" });
stop();
session.close();
