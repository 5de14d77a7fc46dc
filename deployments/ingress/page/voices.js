// Which voice answers: one of the server's list, or one recorded here with the speaker's consent.
import { explain, joined, openMicrophone, PACKET_MS, wav } from "./audio.js";
import { ask } from "./server.js";

const $ = (id) => document.getElementById(id);
const LONGEST_S = 30;
const tell = (problem) => ($("recorder-trouble").textContent = problem.message ?? problem);

// The id of what was made of a form with these fields.
async function post(path, fields) {
  const body = new FormData();
  for (const [field, value] of Object.entries(fields)) body.append(field, value);
  return (await ask(path, { body })).id;
}

export class Voices {
  takes = {}; // recordings, by "consent" and "sample"
  stop = null; // ends the recording that runs

  // onChange() once another voice is chosen.
  constructor(onChange) {
    this.onChange = onChange;
    $("voice").onchange = () => this.changed();
    const remove = () => ask(`/v1/audio/voices/${this.chosen.id}`, { method: "DELETE" });
    $("delete-voice").onclick = () => remove().catch(({ message }) => alert(message)).then(() => this.load());
    $("record-voice").onclick = () => $("recorder").showModal();
    $("recorder").onclose = () => this.stop?.();
    $("recorder-form").onsubmit = ({ submitter }) => submitter.value !== "keep" || (this.keep().catch(tell), false);
    for (const button of document.querySelectorAll("[data-take]")) button.onclick = () => this.take(button);
  }

  // As a session names it.
  get chosen() {
    return $("voice").value === "default" ? "default" : { id: $("voice").value };
  }

  changed() {
    $("delete-voice").hidden = this.chosen === "default";
    this.onChange();
  }

  async load(chosen) {
    const { data } = await ask("/v1/audio/voices?limit=100");
    const options = data.map(({ id, name }) => new Option(name, id, false, id === chosen));
    $("voice").replaceChildren(new Option("default"), ...options);
    this.changed();
  }

  // Start a recording, or end the one that runs.
  async take(button) {
    if (this.stop) return this.stop();
    tell("");
    const [label, packets] = [button.textContent, []];
    const hear = (packet) => {
      const spoken_s = (packets.push(packet) * PACKET_MS) / 1000;
      button.nextElementSibling.textContent = `${spoken_s.toFixed(1)} s`;
      if (spoken_s >= LONGEST_S) this.stop?.();
    };
    const close = await openMicrophone(hear, () => this.stop?.()).catch((error) => tell(explain(error)));
    if (!close) return;
    button.textContent = "Stop";
    this.stop = () => {
      close();
      button.textContent = label;
      this.takes[button.dataset.take] = wav(joined(packets));
      this.stop = null;
    };
  }

  async keep() {
    const { consent: recording, sample: audio_sample } = this.takes;
    if (!recording || !audio_sample) return tell(`Record ${recording ? "the sample" : "your consent"} first.`);
    const [name, transcript] = [$("voice-name").value, $("transcript").value];
    const consent = await post("/v1/audio/voice_consents", { name, language: "en-US", recording });
    await this.load(await post("/v1/audio/voices", { name, consent, audio_sample, transcript }));
    this.takes = {};
    $("recorder").close();
  }
}
