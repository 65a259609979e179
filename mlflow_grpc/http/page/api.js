// Calls to the server. All addresses are relative, so that the page works behind a proxy with a prefix.

import { parse } from "./json.js";
import { fetchWithToken } from "./token.js";

const TIMING = { "server-timing": "1" };

/** An error from the server, with the fields at fault. */
export class CallError extends Error {
  constructor(status, body) {
    super(body.message ?? body.error ?? `The server answered with status ${status}.`);
    this.status = status;
    this.code = body.error_code ?? "";
    this.requestId = body.request_id ?? "";
    this.violations = body.violations ?? [];
    this.retryAfterS = 0;
  }
}

/** Returns the JSON of a GET request. */
export async function get(path, options = {}) {
  const response = await fetchWithToken(path, { cache: "no-store", ...options });
  if (!response.ok) throw await errorOf(response);
  return path.endsWith("metrics") ? response.text() : response.json();
}

/** Returns the path that calls a model. */
export function pathOf(model) {
  const name = encodeURIComponent(model.name);
  return model.version
    ? `models/${name}/versions/${encodeURIComponent(model.version)}/invocations`
    : `models/${name}/invocations`;
}

/** Sends a payload and returns the answer: its text, the times in the server and the total time. */
export async function predict(model, payload, { contentType = "application/json", signal } = {}) {
  const start = performance.now();
  const response = await fetchWithToken(pathOf(model), {
    method: "POST",
    headers: { "content-type": contentType, ...TIMING },
    body: payload,
    signal,
  });
  if (!response.ok) throw await errorOf(response);
  const text = await response.text();
  return { text, timing: timingOf(response), elapsedMs: performance.now() - start };
}

/** Sends a payload and yields the parts of the answer as they arrive: {text, atMs}. */
export async function* predictStream(model, payload, { signal } = {}) {
  const start = performance.now();
  const response = await fetchWithToken(pathOf(model), {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream", ...TIMING },
    body: payload,
    signal,
  });
  if (!response.ok) throw await errorOf(response);
  for await (const text of events(response.body)) {
    if (text === "[DONE]") return;
    const part = parse(text);
    if (part && typeof part === "object" && "error_code" in part && "error" in part) throw new CallError(200, part);
    yield { part, atMs: performance.now() - start };
  }
  throw new CallError(0, { message: "The connection was lost before the end of the stream." });
}

/** Yields the data of server-sent events. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n").filter((line) => line.startsWith("data: "));
        if (lines.length) yield lines.map((line) => line.slice("data: ".length)).join("\n");
      }
    }
  } finally {
    await reader.cancel();
  }
}

async function errorOf(response) {
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    body = { message: text.slice(0, 500) };  // Status 415 is plain text, and a proxy may answer with HTML.
  }
  const error = new CallError(response.status, body);
  error.retryAfterS = Number(response.headers.get("retry-after")) || 0;
  return error;
}

/** Returns the times in the header server-timing, in milliseconds, by name. */
function timingOf(response) {
  const times = {};
  for (const [, name, duration] of (response.headers.get("server-timing") ?? "").matchAll(/(\w+);dur=([\d.]+)/g)) {
    times[name] = Number(duration);
  }
  return times;
}
