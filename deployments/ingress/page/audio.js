// The microphone and the loudspeaker, as the rest of the page sees them. All samples are 24 kHz mono.
export const RATE_HZ = 24000;
export const PACKET_MS = 40;
const KEPT = 1500; // packets of the user's voice that are kept, to tell a new connection what was said
const SENTENCES = {
  NotAllowedError: "The microphone is blocked. Allow it beside the address of this page and try again, or type.",
  NotFoundError: "There is no microphone. Plug one in and try again, or type.",
  NotReadableError: "Another program holds the microphone. Close it there and try again, or type.",
  SecurityError: "Browsers give sound and microphone to secure pages only: open this one by https or on localhost.",
};
export const explain = ({ name, message }) => SENTENCES[name] ?? `The sound fails: ${message}. Reload this page.`;

async function worklet(context, name, options) {
  if (!isSecureContext) throw new DOMException("", "SecurityError");
  await context.audioWorklet.addModule(new URL("worklets.js", import.meta.url));
  return new AudioWorkletNode(context, name, options);
}

const char = (byte) => String.fromCharCode(byte);
export const toBase64 = (pcm) => btoa(Array.from(new Uint8Array(pcm.buffer), char).join(""));

export function joined(packets) {
  const pcm = new Int16Array(packets.reduce((total, packet) => total + packet.length, 0));
  packets.reduce((at, packet) => (pcm.set(packet, at), at + packet.length), 0);
  return pcm;
}

export function wav(pcm) {
  const header = new DataView(new ArrayBuffer(44));
  [..."RIFF....WAVEfmt ....................data"].forEach((char, i) => header.setUint8(i, char.charCodeAt(0)));
  const numbers = { 4: 36 + pcm.byteLength, 16: 16, 20: 0x10001, 24: RATE_HZ, 28: 2 * RATE_HZ, 32: 0x100002 };
  for (const [at, number] of Object.entries({ ...numbers, 40: pcm.byteLength })) header.setUint32(+at, number, true);
  return new Blob([header, pcm], { type: "audio/wav" });
}

// onPacket(40 ms as Int16Array); onEnd() when the device goes away. Resolves to what closes it again.
export async function openMicrophone(onPacket, onEnd) {
  const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const [track] = stream.getTracks();
  track.onended = onEnd;
  const context = new AudioContext(); // at the device's own rate: not every browser resamples a microphone
  const capture = await worklet(context, "capture", { numberOfOutputs: 0 });
  capture.port.onmessage = ({ data }) => onPacket(data);
  context.createMediaStreamSource(stream).connect(capture);
  return () => [track.stop(), context.close()];
}

// What a connection was sent: when each millisecond of it was spoken, and the last minute of it.
export class Sent {
  packets = [];
  ms = 0;

  add(packet) {
    this.packets = [...this.packets.slice(1 - KEPT), packet];
    this.ms += PACKET_MS;
    this.lastAt = performance.now();
  }

  spokenAt(ms) {
    return this.lastAt - this.ms + ms;
  }

  since(ms) {
    return joined(this.packets.slice(Math.floor((ms - this.ms) / PACKET_MS)));
  }
}

// onReport({item, played, queued, heard, underruns, ended}) thirty times a second while it plays; counts are samples.
export async function openPlayer(onReport) {
  const context = new AudioContext({ sampleRate: RATE_HZ });
  const node = await worklet(context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
  node.connect(context.destination);
  const stopping = [];
  node.port.onmessage = ({ data }) => (data.stopped ? stopping.shift()?.(data) : onReport(data));
  return {
    // base64 PCM16 of the reply `item`; returns the number of samples.
    play(item, base64) {
      const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
      const samples = Float32Array.from(new Int16Array(bytes.buffer), (sample) => sample / 32768);
      node.port.postMessage({ verb: "play", item, samples });
      return samples.length;
    },
    end: () => node.port.postMessage({ verb: "end" }),
    // Silence at once. Resolves to what was played last: {item, queued, underruns, heard_ms: out of the loudspeaker}.
    async stop() {
      const stopped = new Promise((resolve) => stopping.push(resolve));
      node.port.postMessage({ verb: "stop" });
      const { item, queued, played, underruns } = await stopped;
      const heard_s = played / RATE_HZ - (context.outputLatency || context.baseLatency);
      return { item, queued, underruns, heard_ms: Math.max(0, Math.round(heard_s * 1000)) };
    },
  };
}
