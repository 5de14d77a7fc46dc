// One spoken conversation, as in conversation.py: a question, an interruption of its answer, and the answer to that.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const RATE_HZ = 24_000;
const PIECE_MS = 20;
const PIECE_BYTES = (RATE_HZ * PIECE_MS * 2) / 1000; // int16 mono
const HEARD_S = 0.4; // of an answer, before the user interrupts it
const LEAST_ANSWER_S = 1.0;
const LATE_S = 0.25; // of the first answer, already under way inside the client when the interruption was told
const PATIENCE_MS = 60_000; // for each step, on a busy machine

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function speech(clip) {
  const file = readFileSync(new URL(`speech/${clip}.wav`, import.meta.url));
  assert.equal(file.readUInt32LE(24), RATE_HZ, clip);
  return file.subarray(file.indexOf("data") + 8);
}

// What the client's user hears and is told. Scripts report to it; hold() speaks, waits and checks.
export class Conversation {
  replies = []; // {audioS, words, ended}, as the client tells of them
  errors = [];
  interrupted = 0;
  #speech = Buffer.alloc(0);

  begins = () => this.replies.push({ audioS: 0, words: "", ended: null });
  hears = (bytes) => (this.replies.at(-1).audioS += bytes / 2 / RATE_HZ);
  reads = (words) => (this.replies.at(-1).words += words);
  ends = (how) => (this.replies.at(-1).ended = how);
  isInterrupted = () => (this.interrupted += 1);

  // Give send 20 ms of speech or silence at a time, at the pace of speech. Returns a function that stops it.
  microphone(send) {
    let due = Date.now();
    const timer = setInterval(() => {
      for (; due <= Date.now(); due += PIECE_MS) {
        const piece = Buffer.alloc(PIECE_BYTES);
        this.#speech.copy(piece);
        this.#speech = this.#speech.subarray(PIECE_BYTES);
        send(piece);
      }
    }, PIECE_MS);
    return () => clearInterval(timer);
  }

  // finished and cutShort: how the client says that an answer ended by itself, or was interrupted.
  // Prints what each step was, as the last line; throws with all that was heard.
  async hold(version, { finished, cutShort }) {
    this.#speech = speech("question");
    await this.#until(() => this.replies[0]?.audioS >= HEARD_S, "the first answer");
    const first = this.replies[0];
    this.#check(first.ended === null, "an answer to be interrupted while it is made");
    this.#speech = speech("interruption");
    const spokeAt = Date.now();
    await this.#until(() => this.interrupted === 1, "the interruption");
    const tookMs = Date.now() - spokeAt;
    const heardS = first.audioS;
    await this.#until(() => this.replies.length === 2 && this.replies[1].ended !== null, "the second end");
    const second = this.replies[1];
    this.#check(first.ended === cutShort, "the first answer to be cut short");
    this.#check(first.audioS - heardS <= LATE_S, `no more of the first answer than ${heardS.toFixed(2)} s`);
    this.#check(finished.includes(second.ended), "the second answer to be finished");
    this.#check(second.audioS >= LEAST_ANSWER_S, "a second answer of some length");
    this.#check(first.words && second.words, "the words of both answers");
    this.#check(this.interrupted === 1, "one interruption");
    const steps = {
      version,
      turn_1: `${first.audioS.toFixed(1)} s, ${first.ended}`,
      barge_in: `${tookMs} ms`,
      turn_2: `${second.audioS.toFixed(1)} s, ${second.ended}`,
    };
    console.log(`\n${JSON.stringify(steps)}`);
  }

  async #until(happened, what) {
    const endsAt = Date.now() + PATIENCE_MS;
    while (!happened()) {
      this.#check(this.errors.length === 0, "no error");
      this.#check(Date.now() < endsAt, `${what} within ${PATIENCE_MS} ms`);
      await sleep(10);
    }
  }

  #check(holds, wanted) {
    const told = JSON.stringify({ replies: this.replies, interrupted: this.interrupted, errors: this.errors });
    assert.ok(holds, `wanted ${wanted}; ${told}`);
  }
}

// The version of a package in the environment that this script runs in (NODE_PATH does not reach ES modules).
export const versionOf = (name) =>
  JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;
