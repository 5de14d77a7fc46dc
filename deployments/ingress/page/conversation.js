// What was said by both sides: shown as it is heard, and told again to a new connection.
import { RATE_HZ, toBase64 } from "./audio.js";

class Entry {
  waiting = []; // words whose audio is here: {at: sample of the reply, text}
  unplaced = ""; // words whose audio is not here yet
  samples = 0;
  text = "";

  constructor(id, role) {
    const list = document.getElementById("words");
    Object.assign(this, { id, role, element: list.appendChild(document.createElement("li")) });
    this.element.className = role;
    this.write("span", role === "user" ? "You" : "Chroma");
    this.words = this.write("p", "");
  }

  write(tag, text, element = this.element.appendChild(document.createElement(tag))) {
    element.textContent = text;
    this.element.scrollIntoView({ block: "nearest" });
    return element;
  }

  say(text) {
    this.write("p", (this.text += text), this.words);
  }

  spoken(pcm) {
    this.audio = pcm;
    this.write("p", `spoken, ${(pcm.length / RATE_HZ).toFixed(1)} s`, this.words);
  }

  // Words of a reply, ahead of the audio that says them.
  expect(text) {
    this.element.ariaBusy = "true"; // a screen reader reads the whole reply at its end, not word by word
    this.unplaced += text;
  }

  // So much more audio of a reply is here: the words before it are spread over it.
  place(samples) {
    const words = this.unplaced.match(/\s*\S+|\s+$/g) ?? [];
    words.forEach((text, i) => this.waiting.push({ at: this.samples + (samples * i) / words.length, text }));
    this.unplaced = "";
    this.samples += samples;
  }

  // So many samples of a reply have been played.
  heard(samples) {
    while (this.waiting[0]?.at <= samples) this.say(this.waiting.shift().text);
  }

  // The reply was played to its end, or cut off after what has been heard.
  end(cut = false) {
    this.place(0);
    if (cut) this.write("small", "interrupted");
    else this.heard(Infinity);
    this.waiting = [];
    this.element.ariaBusy = "false";
  }

  // As conversation.item.create takes it; none while there is nothing to tell.
  get items() {
    const text = this.text + this.waiting.map((word) => word.text).join("");
    const said = { type: this.role === "user" ? "input_text" : "output_text", text };
    const part = this.audio ? { type: "input_audio", audio: toBase64(this.audio) } : said;
    return part.audio || text ? [{ id: this.id, type: "message", role: this.role, content: [part] }] : [];
  }
}

export class Conversation extends Map {
  of(id, role = "assistant") {
    if (!this.has(id)) this.set(id, new Entry(id, role));
    return this.get(id);
  }

  get items() {
    return [...this.values()].flatMap(({ items }) => items);
  }
}
