// The page itself: what the server says and what the user does, brought together.
import { explain, openMicrophone, openPlayer, RATE_HZ, Sent, toBase64 } from "./audio.js";
import { Conversation } from "./conversation.js";
import { Plot, showShares } from "./plots.js";
import { Connection, key } from "./server.js";
import { Voices } from "./voices.js";

const SILENCE_MS = 500; // ends what a user says
const $ = (id) => document.getElementById(id);
const trouble = (text) => Object.assign($("trouble"), { textContent: text, hidden: !text });
const ms = (value) => `${Math.round(value)} ms`;
const seconds = (value) => `${value.toFixed(1)} s`;
const afterSpeech = new Plot($("numbers"), "First audio after you stop", ms);
const afterCommit = new Plot($("numbers"), "First audio after commit", ms);
const rtf = new Plot($("numbers"), "RTF: seconds to make a second", (value) => value.toFixed(2));
const underruns = new Plot($("numbers"), "Underruns", String);
const ahead = new Plot($("numbers"), "Audio in hand, now", seconds);
const conversation = new Conversation();
const connection = new Connection({ event: (event) => on[event.type]?.(event), lost, failed });
const voices = new Voices(configure);
const silenced = new Set(); // responses that were interrupted: what still comes of them is dropped
const times = {}; // when the user's last words ended and were committed, until the first audio has come
let player = null;
let queued_s = 0; // audio in hand
let closeMicrophone = null; // while it is open
let sent = new Sent();
let ready = false; // the session is set up; null once it was lost
let saying = null; // what the user is saying: {id, startMs}
let reply = null; // the response being made: {id, item}

function state(text = closeMicrophone ? "Listening" : "Ready when you are") {
  if ($("state").textContent !== text) $("state").textContent = text;
  $("interrupt").disabled = !["Thinking", "Speaking"].includes(text);
  $("talk").className = closeMicrophone ? "live" : "main";
  $("talk").lastElementChild.textContent = closeMicrophone ? "Mute" : "Talk";
}

function lost(sentence) {
  if (reply) interrupt();
  ready = saying = null;
  trouble(sentence);
  state("Connecting");
}

function failed({ message, status }) {
  lost(status === 401 && !key.get() ? "" : message);
  state("Not connected");
  $("key-form").hidden = status !== 401;
  if (status === 401) $("key").focus();
}

function configure() {
  const format = { type: "audio/pcm", rate: RATE_HZ };
  const turn_detection = { type: "server_vad", silence_duration_ms: SILENCE_MS };
  const audio = { input: { format, turn_detection }, output: { format, voice: voices.chosen } };
  connection.send({ type: "session.update", session: { type: "realtime", output_modalities: ["audio"], audio } });
}

function respond() {
  times.committed = performance.now();
  connection.send({ type: "response.create" });
}

// Stop the reply and tell how much of it was heard. Where the server hears the user, it cancels by itself.
async function interrupt(cancel = false) {
  const cut = reply;
  reply = null;
  if (cut) silenced.add(cut.id);
  if (cut && cancel) connection.send({ type: "response.cancel", response_id: cut.id });
  const last = await player.stop();
  const id = cut?.item ?? (last.queued ? last.item : null);
  if (!id) return;
  queued_s = 0;
  underruns.push(last.underruns);
  const audio_end_ms = id === last.item ? last.heard_ms : 0;
  conversation.of(id).heard((audio_end_ms * RATE_HZ) / 1000);
  conversation.of(id).end(true);
  connection.send({ type: "conversation.item.truncate", item_id: id, content_index: 0, audio_end_ms });
}

// The user stopped talking.
function said() {
  conversation.of(saying.id, "user").spoken(sent.since(saying.startMs));
  saying = null;
  state("Thinking");
}

const on = {
  "session.created"() {
    sent = new Sent();
    configure();
    for (const item of conversation.items) connection.send({ type: "conversation.item.create", item });
    if (conversation.items.at(-1)?.role === "user") respond();
    if (ready === null) trouble("");
    ready = true;
    state();
  },
  "input_audio_buffer.speech_started"({ item_id, audio_start_ms }) {
    saying = { id: item_id, startMs: audio_start_ms };
    interrupt();
    conversation.of(item_id, "user");
    state("Hearing you");
  },
  "input_audio_buffer.speech_stopped"({ audio_end_ms }) {
    times.stopped = sent.spokenAt(audio_end_ms - SILENCE_MS);
    if (saying) said();
  },
  "input_audio_buffer.committed": () => (times.committed = performance.now()),
  "response.created"({ response }) {
    reply = { id: response.id };
    trouble(""); // of the turn before
    state("Thinking");
  },
  "response.output_item.added": ({ response_id: id, item }) => reply?.id === id && (reply.item = item.id),
  "response.output_audio_transcript.delta"({ response_id, item_id, delta }) {
    if (!silenced.has(response_id)) conversation.of(item_id).expect(delta);
  },
  "response.output_audio.delta"({ response_id, item_id, delta }) {
    if (silenced.has(response_id)) return;
    afterCommit.push(performance.now() - times.committed);
    afterSpeech.push(performance.now() - times.stopped);
    times.committed = times.stopped = NaN;
    conversation.of(item_id).place(player.play(item_id, delta));
  },
  "response.output_audio.done": ({ response_id }) => silenced.has(response_id) || player.end(),
  "response.done"({ response: { id, status, status_details: details, chroma } }) {
    silenced.delete(id);
    if (reply?.id === id) reply = null;
    if (status === "failed") [trouble(`${details.error.message} Please ask again.`), state()];
    if (status === "cancelled" || !chroma) return;
    rtf.push(chroma.rtf);
    showShares($("shares"), $("legend"), chroma.stages);
  },
  error: ({ error }) => error.code === "response_cancel_not_active" || trouble(error.message),
};

function report({ item, played, queued, heard, ended, underruns: gaps }) {
  queued_s = queued / RATE_HZ;
  $("heard").value = seconds(heard / RATE_HZ);
  conversation.of(item).heard(played);
  if (!ended) return state("Speaking");
  conversation.of(item).end();
  underruns.push(gaps);
  state();
}

function hear(packet) {
  const power = packet.reduce((sum, sample) => sum + sample * sample, 0) / packet.length;
  $("level").style.setProperty("--level", Math.min(1, Math.sqrt(power) / 6000));
  if (!ready || $("recorder").open || connection.socket.bufferedAmount > 5e5) return; // bytes: the line is too slow
  sent.add(packet);
  connection.send({ type: "input_audio_buffer.append", audio: toBase64(packet) });
}

async function begin() {
  $("welcome").hidden = true;
  player ??= await openPlayer(report);
  connection.start();
}

async function listen() {
  await begin();
  closeMicrophone = await openMicrophone(hear, () => [hush(), trouble(explain({ name: "NotFoundError" }))]);
  state(ready ? undefined : "Connecting");
}

function hush() {
  closeMicrophone();
  closeMicrophone = null;
  $("level").style.setProperty("--level", 0);
  connection.send({ type: `input_audio_buffer.${saying ? "commit" : "clear"}` });
  if (!saying) return state(queued_s ? "Speaking" : undefined);
  said();
  respond();
}

async function type(text) {
  await begin();
  await interrupt(true);
  conversation.of(`item_${crypto.getRandomValues(new Uint32Array(2)).join("")}`, "user").say(text);
  if (!ready) return; // told with the rest of the conversation, once connected
  connection.send({ type: "conversation.item.create", item: conversation.items.at(-1) });
  respond();
}

const enter = () => voices.load().then(() => [trouble(""), conversation.size && connection.start()], failed);
const silent = (error) => trouble(explain(error));
$("talk").onclick = () => (closeMicrophone ? hush() : listen().catch(silent));
$("say").onsubmit = () => {
  if ($("text").value.trim()) type($("text").value.trim()).catch(silent);
  $("text").value = "";
  return false;
};
$("key-form").onsubmit = () => {
  key.set($("key").value);
  $("key-form").hidden = true;
  enter();
  return false;
};
$("interrupt").onclick = () => interrupt(true).then(() => state());
addEventListener("keydown", ({ key }) => key === "Escape" && !$("recorder").open && $("interrupt").click());
addEventListener("pagehide", () => connection.stop());
setInterval(() => player && ahead.push(queued_s), 500);
enter();
