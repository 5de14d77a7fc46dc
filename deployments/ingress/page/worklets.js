// On the audio threads: the microphone as 24 kHz PCM16 packets, and a reply's samples to the loudspeaker.
import { Resampler } from "./resampler.js";

const [RATE_HZ, PACKET] = [24000, 960]; // 40 ms
const JITTER = 2880; // 120 ms are gathered before playing starts, and again after an underrun

registerProcessor("capture", class extends AudioWorkletProcessor {
  resampler = new Resampler(sampleRate, RATE_HZ);
  packet = new Int16Array(PACKET);
  filled = 0;

  process([[input]]) {
    for (const sample of input ? this.resampler.push(input) : []) {
      this.packet[this.filled++] = Math.max(-1, Math.min(1, sample)) * 32767;
      if (this.filled === PACKET) this.port.postMessage(this.packet); // a copy
      this.filled %= PACKET;
    }
    return true;
  }
});

registerProcessor("playback", class extends AudioWorkletProcessor {
  told = { item: null, played: 0, heard: 0, underruns: 0 }; // of the item, but heard: of all, what was no silence
  blocks = 0; // of 128 samples

  constructor() {
    super();
    this.stop();
    this.port.onmessage = ({ data }) => this[data.verb](data);
  }

  play({ item, samples }) {
    if (this.dry && item === this.told.item) this.told.underruns++; // a gap was heard
    this.dry = this.complete = false;
    this.queue.push({ item, samples });
    this.queued += samples.length;
  }

  end() {
    this.complete = true;
    if (!this.queued && this.told.item) this.report();
  }

  stop() {
    this.report({ stopped: true });
    Object.assign(this, { queue: [], offset: 0, queued: 0, flowing: false, complete: true, dry: false });
  }

  report(more) {
    this.port.postMessage({ ...this.told, queued: this.queued, ended: this.complete && !this.queued, ...more });
  }

  process(_, [[out]]) {
    if (this.queued && (this.complete || this.queued >= JITTER)) this.flowing = true;
    if (!this.flowing) return true;
    for (let filled = 0; filled < out.length && this.queued; ) {
      const { item, samples } = this.queue[0];
      if (item !== this.told.item) Object.assign(this.told, { item, played: 0, underruns: 0 });
      const part = samples.subarray(this.offset, this.offset + out.length - filled);
      out.set(part, filled);
      filled += part.length;
      this.offset += part.length;
      this.queued -= part.length;
      this.told.played += part.length;
      this.told.heard += part.reduce((count, sample) => count + (Math.abs(sample) > 0.001), 0);
      if (this.offset === samples.length) [this.offset] = [0, this.queue.shift()];
    }
    this.flowing = this.queued > 0;
    this.dry = !this.flowing && !this.complete;
    if (!this.flowing || this.blocks++ % 6 === 0) this.report();
    return true;
  }
});
