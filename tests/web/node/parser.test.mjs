/** The parser, case by case: whole, byte by byte, and cut in two at every byte. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { EventParser } from "../../../proxy/web/client.js";

const bytes = (text) => new TextEncoder().encode(text);

/** What a reader has at the end of these pieces: events, comments, the last id, the newest retry. */
function parse(pieces) {
  const comments = [];
  const parser = new EventParser("", (comment) => comments.push(comment));
  const decoder = new TextDecoder();
  const events = pieces.flatMap((piece) => parser.feed(decoder.decode(piece, { stream: true })));
  return {
    events: events.map(({ event, data, lastEventId }) => [event, data, lastEventId]),
    comments,
    id: parser.lastEventId,
    retry: parser.retry,
  };
}

/** Name, stream, and what of the result matters. */
const CASES = [
  ["a plain event", "data: one\n\n", { events: [["message", "one", ""]] }],
  ["the examples of the standard", "data: YHOO\ndata: +2\ndata: 10\n\n", { events: [["message", "YHOO\n+2\n10", ""]] }],
  ["two empty data lines", "data\n\ndata\ndata\n\ndata:", { events: [["message", "", ""], ["message", "\n", ""]] }],
  ["one space after the colon is no data, a second one is", "data:a\n\ndata: a\n\ndata:  a\n\n", {
    events: [["message", "a", ""], ["message", "a", ""], ["message", " a", ""]],
  }],
  ["a tab is data", "data:\ta\n\n", { events: [["message", "\ta", ""]] }],
  ["CR, LF, CRLF and mixtures", "data: 1\r\rdata: 2\n\ndata: 3\r\n\r\ndata: 4\r\n\ndata: 5\n\r\n", {
    events: [1, 2, 3, 4, 5].map((n) => ["message", String(n), ""]),
  }],
  ["a CRLF within a block ends one line, not two", "id: 1\r\ndata: a\r\ndata: b\r\n\r\n", {
    events: [["message", "a\nb", "1"]],
    comments: [],
  }],
  ["a BOM at the beginning", "\uFEFFdata: one\n\n", { events: [["message", "one", ""]] }],
  ["only one BOM", "\uFEFF\uFEFFdata: one\n\ndata: two\n\n", { events: [["message", "two", ""]] }],
  ["a BOM further on belongs to the field's name", "data: 1\n\n\uFEFFdata: 2\n\n", { events: [["message", "1", ""]] }],
  ["an event's name", "event: token\ndata: x\n\ndata: y\n\n", { events: [["token", "x", ""], ["message", "y", ""]] }],
  ["an empty name is message", "event:\ndata: x\n\n", { events: [["message", "x", ""]] }],
  ["the last name counts", "event: a\nevent: b\ndata: x\n\n", { events: [["b", "x", ""]] }],
  ["a name alone is no event, and is forgotten", "event: a\n\ndata: x\n\n", { events: [["message", "x", ""]] }],
  ["an id stays", "id: 1\ndata: x\n\ndata: y\n\n", { events: [["message", "x", "1"], ["message", "y", "1"]], id: "1" }],
  ["an empty id takes it away", "id: 1\ndata: x\n\nid\ndata: y\n\n", { events: [["message", "x", "1"], ["message", "y", ""]] }],
  ["an id with NUL is none", "id: 1\n\nid: a\0b\ndata: x\n\n", { events: [["message", "x", "1"]] }],
  ["an id alone counts, without an event", "id: 7\n\n", { events: [], id: "7" }],
  ["an id of an unfinished block does not count", "id: 1\ndata: x\n\nid: 2\ndata: y\n", {
    events: [["message", "x", "1"]],
    id: "1",
  }],
  ["retry takes digits only", "retry: 50\nretry: 10x\nretry: -1\nretry: ١\nretry:\n\n", { events: [], retry: 50 }],
  ["retry acts at once", "retry: 7\n", { retry: 7 }],
  ["comments are no events", ": ping\n:\n:x:y\ndata: 1\n\n", { events: [["message", "1", ""]], comments: ["ping", "", "x:y"] }],
  ["a bare empty line is a heartbeat, one that ends a block is none", "\ndata: 1\n\n\n", {
    events: [["message", "1", ""]],
    comments: ["", ""],
  }],
  ["unknown fields and fields without a colon", "foo: 1\nbar\n:\ndata\n\n", { events: [["message", "", ""]] }],
  ["field names are exact", "Data: 1\n data: 2\ndata : 3\ndata: 4\n\n", { events: [["message", "4", ""]] }],
  ["an unfinished block is no event", "data: one\n\ndata: two\n", { events: [["message", "one", ""]] }],
  ["characters of two, three and four bytes", "event: grün\nid: 流\ndata: naïve 流れ 🌊\n\n", {
    events: [["grün", "naïve 流れ 🌊", "流"]],
  }],
  ["separators of Unicode do not end lines", "data: a\u2028b\u2029c\u0085d\u000be\n\n", {
    events: [["message", "a\u2028b\u2029c\u0085d\u000be", ""]],
  }],
  ["NUL in data", "data: a\0b\n\n", { events: [["message", "a\0b", ""]] }],
  ["an empty stream", "", { events: [], comments: [], id: "", retry: null }],
];

for (const [name, text, expected] of CASES) {
  test(name, () => {
    const whole = bytes(text);
    const cuts = Array.from(whole, (_, at) => [whole.slice(0, at), whole.slice(at)]);
    const single = Array.from(whole, (_, at) => whole.slice(at, at + 1));
    for (const pieces of [[whole], single, ...cuts]) {
      const result = parse(pieces);
      for (const [what, value] of Object.entries(expected)) {
        assert.deepEqual(result[what], value, `${what}, in ${pieces.length} pieces, the first of ${pieces[0]?.length}`);
      }
    }
  });
}

test("bytes that are no UTF-8 become U+FFFD, and the stream goes on", () => {
  const broken = Uint8Array.from([...bytes("data: a"), 0xff, ...bytes("b\n\ndata: c\n\n")]);
  assert.deepEqual(parse([broken]).events, [["message", "a\uFFFDb", ""], ["message", "c", ""]]);
});

test("a block of 16 MiB in reads of 16 KiB takes no longer than its bytes", () => {
  const parser = new EventParser();
  const piece = "x".repeat(16_384);
  const begun = performance.now();
  parser.feed("data: ");
  for (let count = 0; count < 1024; count += 1) assert.deepEqual(parser.feed(piece), []);
  const [event] = parser.feed("\n\n");
  assert.equal(event.data.length, 16 * 1024 * 1024);
  assert.ok(performance.now() - begun < 2_000, "to look at it again with every read takes minutes");
});

test("a new connection's parser goes on with the old one's last id", () => {
  const [event] = new EventParser("41").feed("data: x\n\n");
  assert.equal(event.lastEventId, "41");
  assert.equal(event.id, undefined);
});
