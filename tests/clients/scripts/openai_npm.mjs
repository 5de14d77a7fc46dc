// openai (npm): OpenAIRealtimeWS, which speaks TLS only; NODE_EXTRA_CA_CERTS says whom to trust.
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { Conversation, versionOf } from "./conversation.mjs";

const client = new OpenAI({ baseURL: process.env.CHROMA_URL, apiKey: "none" });
const realtime = new OpenAIRealtimeWS({ model: "chroma" }, client);
const conversation = new Conversation();

realtime.on("response.created", () => conversation.begins());
realtime.on("response.output_audio.delta", (event) => conversation.hears(Buffer.from(event.delta, "base64").length));
realtime.on("response.output_audio_transcript.delta", (event) => conversation.reads(event.delta));
realtime.on("input_audio_buffer.speech_started", () => conversation.replies.length && conversation.isInterrupted());
realtime.on("response.done", (event) => conversation.ends(event.response.status));
realtime.on("error", (error) => conversation.errors.push(error.message));

await new Promise((opened) => realtime.on("session.created", opened));
realtime.send({ type: "session.update", session: { type: "realtime", instructions: "Answer in one sentence." } });
const stop = conversation.microphone((piece) =>
  realtime.send({ type: "input_audio_buffer.append", audio: piece.toString("base64") }),
);
await conversation.hold(versionOf("openai"), { finished: ["completed", "incomplete"], cutShort: "cancelled" });
stop();
realtime.close();
