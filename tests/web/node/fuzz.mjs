/**
 * Reads many streams of all kinds over a wire that breaks anywhere, and drops connections by itself. Ends with status 1
 * where an event is missing, comes twice or out of order.
 *
 *     node fuzz.mjs STREAMS SEED
 */

import assert from "node:assert/strict";

import { WebSocket } from "ws";

import { openSocket, openStream, perFrame } from "../../../proxy/web/client.js";
import { all, ASK, SIDECAR, upTo } from "./support.mjs";

const [streams, seed] = process.argv.slice(2).map(Number);
const AT_ONCE = 20;

/** Kinds of streams: a path, a body, and how many events come of 40 tokens. */
const KINDS = [
  ["/v1/chat/completions", ASK, 43],
  ["/v1/responses", { model: "demo", stream: true, input: "hello" }, 48],
  ["/v1/messages", { model: "demo", stream: true, max_tokens: 99, messages: ASK.messages }, 46],
  ["/v1beta/models/demo:streamGenerateContent?alt=sse", { contents: [{ parts: [{ text: "hello" }] }] }, 41],
  ["/api/chat", { prompt: "hello" }, 41],
];

/** A generator of numbers from 0 to 1: mulberry32, so that a seed says what happens. */
function chances(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// The request itself goes straight to the sidecar, since it is never repeated; all that follows goes over the wire.

const overTheWire = (url) => String(url).replace(new URL(SIDECAR).host, new URL(process.env.WIRE).host);

const fetching = (url, init) => fetch(init.method === "POST" ? url : overTheWire(url), init);

class Socket extends WebSocket {
  constructor(url, protocols) {
    super(url.searchParams.has("last_event_id") ? overTheWire(url) : url, protocols);
  }
}

async function read(number) {
  const chance = chances(seed + number);
  const [path, body, expected] = KINDS[number % KINDS.length];
  const url = `${path}${path.includes("?") ? "&" : "?"}interval=${(chance() * 0.004).toFixed(4)}`;
  const retry = { delay: 5, max: 50, attempts: 100 };
  const answer = chance() < 0.4
    ? openSocket(`${SIDECAR}${url}`, { body, retry, WebSocket: Socket })
    : openStream(`${SIDECAR}${url}`, { body, retry, fetch: fetching });
  const seen = [];
  for await (const events of perFrame(answer)) {
    for (const { seq, json } of events) seen.push([seq, json]);
    if (chance() < 0.25) answer.drop();
  }
  assert.deepEqual(seen.map(([seq]) => seq), upTo(expected), `stream ${number}, ${path}`);
  assert.equal(answer.end.reason, "complete");
  const whole = await all(openStream(SIDECAR, { stream: answer.stream }));
  assert.deepEqual(seen.map(([, json]) => json), whole.map(({ json }) => json), `stream ${number}, ${path}`);
}

for (let begun = 0; begun < streams; begun += AT_ONCE) {
  await Promise.all(Array.from({ length: AT_ONCE }, (_, at) => read(begun + at)));
}
