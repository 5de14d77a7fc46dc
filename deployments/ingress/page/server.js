// The server's HTTP answers, and a Realtime connection that comes back by itself.
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const BUSY = [429, 502, 503, 504];
const FOR_GOOD = [1002, 1003, 1007, 1008]; // and 4000 and above
const CLOSED = { 1001: "The session has ended.", 1012: "The server is being restarted.", 1013: "The server is busy." };

export const key = { get: () => sessionStorage.getItem("key"), set: (value) => sessionStorage.setItem("key", value) };

// The JSON of an answer; a body that is no FormData is sent as JSON. Throws {message for the user, status, after_s}.
export async function ask(path, { body, method = body ? "POST" : "GET" } = {}) {
  const headers = key.get() ? { authorization: `Bearer ${key.get()}` } : {};
  if (body && !(body instanceof FormData)) body = new Blob([JSON.stringify(body)], { type: "application/json" });
  const response = await fetch(path, { method, body, headers }).catch(() => new Response(null, { status: 502 }));
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const said = answer.error?.message ?? "The server cannot be reached. Check that it runs and that you are online.";
  const after_s = Number(response.headers.get("retry-after"));
  throw Object.assign(new Error(said), { status: response.status, after_s });
}

export class Connection {
  wanted = false;
  tries = 0;

  // on: {event(object), lost(sentence) when it will try again, failed({message, status}) when it will not}
  constructor(on) {
    this.on = on;
  }

  start() {
    if (!this.wanted) this.connect().catch((error) => this.refused(error));
    this.wanted = true;
  }

  stop() {
    this.wanted = false;
    this.socket?.close(1000);
  }

  send(event) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  async connect() {
    const model = (await ask("/v1/models")).data[0].id;
    const body = { session: { type: "realtime", model } };
    const secret = key.get() && (await ask("/v1/realtime/client_secrets", { body })).value;
    const protocols = ["realtime", ...(secret ? [`openai-insecure-api-key.${secret}`] : [])];
    const url = `${location.origin.replace("http", "ws")}/v1/realtime?model=${encodeURIComponent(model)}`;
    this.socket = new WebSocket(url, protocols);
    this.socket.onmessage = ({ data }) => {
      this.tries = 0;
      this.on.event(JSON.parse(data));
    };
    this.socket.onclose = ({ code, reason }) => {
      const status = FOR_GOOD.includes(code) || code >= 4000 ? code : 503;
      const why = CLOSED[code] ?? (this.tries ? "The server is busy." : "The connection was lost.");
      if (this.wanted) this.refused({ status, message: status === code ? `The server ended this: ${reason}` : why });
    };
  }

  refused({ message, status, after_s = 0 }) {
    this.wanted &&= BUSY.includes(status);
    if (!this.wanted) return this.on.failed({ message, status });
    const wait_ms = Math.max(after_s * 1000, RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)]);
    this.on.lost(`${message} Trying again in ${Math.ceil(wait_ms / 1000)} s; what was said is kept.`);
    setTimeout(() => this.wanted && this.connect().catch((error) => this.refused(error)), wait_ms);
  }
}
