// From a microphone's rate to ours: a windowed sinc, tabulated by phase, whose tail waits for the next block.
export class Resampler {
  constructor(from, to) {
    const divisor = (a, b) => (b ? divisor(b, a % b) : a);
    const [up, down] = [to / divisor(from, to), from / divisor(from, to)];
    const cutoff = 0.94 * Math.min(1, to / from); // of Nyquist, with room for the filter's slope
    const half = Math.ceil(12 / cutoff);
    const sinc = (x) => (x ? Math.sin(Math.PI * cutoff * x) / (Math.PI * x) : cutoff);
    const tap = (x) => sinc(x) * (0.5 + 0.5 * Math.cos((Math.PI * x) / half));
    const kernel = (_, phase) => Float32Array.from({ length: 2 * half }, (_, i) => tap(i - half + 1 - phase / up));
    const kernels = Array.from({ length: up }, kernel);
    Object.assign(this, { up, down, kernels, phase: 0, tail: new Float32Array(2 * half - 1) });
  }

  push(input) {
    const x = Float32Array.of(...this.tail, ...input);
    const out = [];
    let at = 0;
    while (at + this.kernels[0].length <= x.length) {
      out.push(this.kernels[this.phase].reduce((sum, tap, i) => sum + tap * x[at + i], 0));
      at += Math.floor((this.phase + this.down) / this.up);
      this.phase = (this.phase + this.down) % this.up;
    }
    this.tail = x.slice(at);
    return out;
  }
}
