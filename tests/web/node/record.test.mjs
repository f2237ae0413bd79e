/** What the playground remembers of a stream, and what it asks for: plain objects, without a page. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { MOST, Record, said } from "../../../proxy/web/record.js";
import { CALM, PRESETS, ROUTES, curl, parameters, request, spoken } from "../../../proxy/web/request.js";

/** An event of the app's, which arrived `at` so many milliseconds. */
const token = (seq, { text = ` word${seq}`, at = 10 * seq } = {}) => ({
  id: `s.${seq}`,
  seq,
  event: "token",
  data: JSON.stringify({ text }),
  json: { text },
  at,
});

const WORDS = [1, 2, 3, 4, 5].map((seq) => token(seq));

/** A record of these events. */
function recordOf(events) {
  const record = new Record(0);
  for (const event of events) record.add(event);
  return record;
}

test("figures are those of the arrivals", () => {
  const record = recordOf([token(1, { at: 200 }), token(2, { at: 300 }), token(3, { at: 1200 })]);
  assert.equal(record.timeToFirstWord, 0.2);
  assert.equal(record.rate, 2);
  assert.equal(record.longestGap, 900);
  assert.equal(record.lastId, "s.3");
});

test("what came in one moment is one lump", () => {
  const record = recordOf([token(1, { at: 5 }), token(2, { at: 5 }), token(3, { at: 5.4 }), token(4, { at: 90 })]);
  assert.deepEqual(record.lumps, [[5, 3], [90, 1]]);
});

test("the same events are no difference, however their JSON is spaced", () => {
  const record = recordOf(WORDS);
  const whole = WORDS.map(({ json }) => said({ data: JSON.stringify(json, null, 1), json }));
  assert.equal(record.difference(whole, 1, false), null);
});

test("a lost, a changed, a repeated and a missing last event are told apart", () => {
  const whole = WORDS.map(said);
  const changed = WORDS.with(2, { ...WORDS[2], json: { text: "else" } });
  assert.match(recordOf(WORDS.toSpliced(2, 1)).difference(whole, 1, false), /^1 times an event's number/);
  assert.match(recordOf(WORDS.toSpliced(2, 0, WORDS[1])).difference(whole, 1, false), /^1 times an event's number/);
  assert.equal(recordOf(changed).difference(whole, 1, false), "event 3 differs");
  assert.equal(recordOf(WORDS.slice(0, 4)).difference(whole, 1, false), "4 events came, 5 are in the stream");
});

test("behind a reader that was stopped there may be more", () => {
  assert.equal(recordOf(WORDS.slice(0, 3)).difference(WORDS.map(said), 1, true), null);
});

test("what fell out of the log, or came before a viewer, is not compared", () => {
  const whole = WORDS.map(said);
  assert.equal(recordOf(WORDS).difference(whole.slice(2), 3, false), null);
  assert.equal(recordOf(WORDS.slice(3)).difference(whole, 1, false), null);
});

test("a stream without an end does not fill the memory", () => {
  const record = new Record(0);
  for (let seq = 1; seq <= 3 * MOST; seq += 1) record.add(token(seq));
  for (let beat = 0; beat < 3 * MOST; beat += 1) record.note({ type: "heartbeat", at: beat });
  assert.equal(record.events, 3 * MOST);
  assert.ok(record.arrivals.length < 2 * MOST && record.data.length < 2 * MOST && record.beats.length <= MOST);
  assert.equal(record.forgotten + record.arrivals.length, 3 * MOST);
  const last = record.data.length;
  const whole = Array.from({ length: last }, (_, index) => said(token(3 * MOST - last + index + 1)));
  assert.equal(record.difference(whole, 3 * MOST - last + 1, false), null);
});

test("a calm provider is asked for nothing but words and their pace", () => {
  const [chat, gemini, feed] = ["chat", "gemini", "feed"].map(route);
  assert.equal(String(parameters(CALM, chat)), "tokens=200&interval=0.04");
  assert.equal(String(parameters(CALM, gemini)), "alt=sse&tokens=200&interval=0.04");
  assert.equal(String(parameters(CALM, feed)), "count=200&interval=0.04");
  assert.equal(String(parameters({ ...CALM, endless: true }, feed)), "interval=0.04");
});

/** A route by its id. */
function route(id) {
  return ROUTES.find((each) => each.id === id);
}

test("each preset differs in the query from all others", () => {
  const queries = PRESETS.map(({ set }) => String(parameters({ ...CALM, ...set }, ROUTES[0])));
  assert.equal(new Set(queries).size, PRESETS.length);
});

test("a line for a shell quotes what the prompt holds", () => {
  const line = curl(request(route("app"), CALM, "it's", "http://localhost/prefix/"));
  assert.ok(line.startsWith("curl -N 'http://localhost/prefix/api/chat?tokens="));
  assert.ok(line.endsWith(`-d '{"prompt":"it'\\''s"}'`));
});

test("an event that only repeats what was said adds nothing", () => {
  assert.equal(spoken({ event: "response.output_text.done", json: { type: "response.output_text.done", text: "all" } }), "");
  assert.equal(spoken({ event: "message", json: undefined }), "");
  assert.equal(spoken({ event: "error", json: { error: "broken", text: "x" } }), "");
});
