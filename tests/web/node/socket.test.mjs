/** openSocket: the same over the bridge, and what only a WebSocket can do wrong. */

import assert from "node:assert/strict";
import { once } from "node:events";

import { WebSocket, WebSocketServer } from "ws";

import { openSocket, openStream } from "../../../proxy/web/client.js";
import { all, ASK, CHAT, eventually, openAtProvider, origin, QUICK, SIDECAR, SOCKET, soon, stream, test, textOf, upTo, WHOLE } from "./support.mjs";

const BRIDGE = CHAT.replace("http", "ws");
const OPTIONS = { body: ASK, ...SOCKET, ...QUICK };

/** A server that is no sidecar: each connection is handed to `talk(socket, hello, request, number)`. */
async function peer(t, talk) {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "sse-sidecar.v1" });
  await once(server, "listening");
  let number = 0;
  server.on("connection", (socket, request) => {
    number += 1;
    const mine = number;
    const say = (message) => socket.send(JSON.stringify(message));
    socket.on("error", () => {});
    socket.on("message", (data) => talk({ socket, say, heard: JSON.parse(data), request, number: mine }));
  });
  t.after(() => {
    for (const client of server.clients) client.terminate();
    server.close();
  });
  return `ws://127.0.0.1:${server.address().port}`;
}

const ID = "abcdefghijklmnopqrstuv";
const event = (n) => ({ type: "event", id: `${ID}.${n}`, event: "message", data: String(n) });

test("a chat comes whole over the bridge, the same as over HTTP", async () => {
  const answer = openSocket(`${CHAT}?interval=0.002`, OPTIONS);
  const { stream: id, status, headers } = await answer.opened;
  assert.deepEqual([status, headers], [200, null]);
  const events = await all(answer);
  const again = await all(openStream(SIDECAR, { stream: id }));
  assert.deepEqual(events.map(({ id: own, seq, event: name, json }) => [own, seq, name, json]),
    again.map(({ id: own, seq, event: name, json }) => [own, seq, name, json]));
  assert.equal(events.length, WHOLE);
  assert.equal(events.at(-1).data, "[DONE]");
  assert.equal(answer.end.reason, "complete");
});

test("a body may be JSON already, or missing", async () => {
  assert.equal((await all(openSocket(`${CHAT}?tokens=1&interval=0`, { ...OPTIONS, body: JSON.stringify(ASK) }))).length, 4);
  const feed = openSocket(`${SIDECAR}/api/events?interval=0.01`, SOCKET);
  for await (const { seq } of feed) if (seq === 3) break;
  assert.equal(feed.end.reason, "left");
  assert.equal((await feed.cancel()).reason, "cancelled");
});

test("a socket that is dropped again and again resumes, and its request is sent once", async () => {
  const told = [];
  const answer = openSocket(`${BRIDGE}?interval=0.005`, { ...OPTIONS, observe: (record) => told.push(record) });
  const events = [];
  for await (const one of answer) {
    events.push(one);
    if (one.seq % 8 === 5) answer.drop();
  }
  assert.deepEqual(events.map(({ seq }) => seq), upTo(WHOLE));
  assert.match(textOf(events), /^A stream is a river — .* none$/);
  const of = (type) => told.filter((record) => record.type === type);
  assert.ok(of("drop").length >= 1);
  assert.deepEqual(of("drop").map(({ after }) => after), of("resume").map(({ after }) => after));
});

test("an app's own ids are the events' ids; the numbers are the sidecar's", async (t) => {
  await origin(t, (req, res) => {
    stream(res);
    res.end("id: a\ndata: 1\n\ndata: 2\n\n");
  });
  const events = await all(openSocket(`${SIDECAR}/o/upstream-ids`, SOCKET));
  assert.deepEqual(events.map(({ id, seq, data }) => [id, seq, data]), [["a", 1, "1"], [events[1].id, 2, "2"]]);
});

test("a stream that broke is an error with its reason, after all that came", async () => {
  const answer = openSocket(`${CHAT}?drop_at=7&interval=0`, OPTIONS);
  await assert.rejects(all(answer), { code: "truncated", seq: 8 });
  assert.equal(answer.end.reason, "truncated");
});

test("a refusal is an error with the provider's status and body", async () => {
  const answer = openSocket(`${CHAT}?status=429`, OPTIONS);
  await assert.rejects(answer.opened, (error) => {
    assert.deepEqual([error.code, error.status, error.recoverable], ["upstream-status", 429, true]);
    return JSON.parse(error.body).error.message !== "";
  });
});

test("an answer that is no stream is an error with its body", async (t) => {
  await origin(t, (req, res) => res.writeHead(200, { "Content-Type": "application/json" }).end('{"a": 1}'));
  await assert.rejects(openSocket(`${SIDECAR}/o/plain`, SOCKET).opened, { code: "not-a-stream", status: 200, body: '{"a":1}' });
});

test("a second viewer follows over a socket what was begun over HTTP", async () => {
  const first = openStream(`${CHAT}?interval=0.005`, { body: ASK });
  const seen = [];
  for await (const { seq } of first) {
    if (seq === 20) seen.push(all(openSocket(CHAT, { ...SOCKET, stream: first.stream, after: 20 })));
  }
  assert.deepEqual((await seen[0]).map(({ seq }) => seq), upTo(WHOLE).slice(20));
  await assert.rejects(all(openSocket(CHAT, { ...SOCKET, stream: ID })), { code: "unknown-stream" });
});

test("cancel says so over the socket, ends the iteration at once, and the provider stops", async () => {
  const answer = openSocket(`${CHAT}?endless=1&interval=0.005`, OPTIONS);
  let count = 0;
  for await (const { seq } of answer) {
    count += 1;
    if (seq === 5) assert.equal(await answer.cancel(), await answer.cancel());
  }
  assert.equal(count, 5);
  assert.deepEqual(answer.end, { reason: "cancelled", message: "cancelled by the client" });
  await eventually(async () => (await openAtProvider()) === 0, "the provider's rest");
});

test("cancel while the answer is waited for takes the request back", async () => {
  const answer = openSocket(`${CHAT}?headers_delay=30`, OPTIONS);
  await eventually(async () => (await openAtProvider()) === 1, "the request at the provider");
  await soon(answer.cancel());
  await assert.rejects(answer.opened, { code: "cancelled" });
  await eventually(async () => (await openAtProvider()) === 0, "the provider's rest");
});

test("cancel while the socket is still connecting lets no request leave", async (t) => {
  const bodies = [];
  const url = await peer(t, ({ say, heard }) => {
    bodies.push(heard.body);
    say({ type: "open", stream: ID, status: 200 });
    say({ type: "end", stream: ID, reason: "complete" });
  });
  const answer = openSocket(url, { ...OPTIONS, body: "1" });
  await new Promise(setImmediate); // its socket is there, and not yet open
  assert.equal((await soon(answer.cancel())).reason, "cancelled");
  await all(openSocket(url, { ...OPTIONS, body: "2" }));
  assert.deepEqual(bodies, [2]);
});

test("cancel without a connection opens one to say so", async () => {
  const answer = openSocket(`${CHAT}?endless=1&interval=0.005`, { ...OPTIONS, retry: { delay: 60_000 } });
  const reading = (async () => {
    for await (const { seq } of answer) if (seq === 3) answer.drop();
  })();
  await eventually(() => answer.state === "waiting", "the pause");
  assert.equal((await soon(answer.cancel())).reason, "cancelled");
  await soon(reading);
  await eventually(async () => (await openAtProvider()) === 0, "the provider's rest");
});

test("cancel after the reader gave up opens a connection to say so", async (t) => {
  const heardTypes = [];
  const url = await peer(t, ({ socket, say, heard }) => {
    heardTypes.push(heard.type);
    if (heard.type === "cancel") return say({ type: "end", stream: ID, reason: "cancelled" });
    if (heard.type === "start") return say({ type: "open", stream: ID, status: 200 }), say(event(1)), socket.close(1001);
    return socket.close(1013);
  });
  const answer = openSocket(url, { ...OPTIONS, retry: { delay: 1, max: 2, attempts: 2 } });
  await assert.rejects(all(answer), { code: "unreachable", seq: 1 });
  assert.equal((await soon(answer.cancel())).reason, "cancelled");
  assert.equal(answer.end.reason, "unreachable");
  assert.deepEqual(heardTypes, ["start", "resume", "resume", "cancel"]);
});

test("abort closes the socket and cancels nothing", async () => {
  const controller = new AbortController();
  const answer = openSocket(`${CHAT}?hang_at=2`, { ...OPTIONS, signal: controller.signal });
  const reading = all(answer);
  await eventually(() => answer.seq === 2, "the second event");
  controller.abort();
  await assert.rejects(soon(reading), { name: "AbortError" });
  const address = `${SIDECAR}/_streams/${answer.stream}`;
  await eventually(async () => (await (await fetch(`${address}/state`)).json()).state === "lingering", "its linger");
  await fetch(address, { method: "DELETE" });
});

test("a token goes as a subprotocol, next to the bridge's name and the caller's", async (t) => {
  let offered;
  const url = await peer(t, ({ say, request }) => {
    offered = request.headers["sec-websocket-protocol"];
    say({ type: "open", stream: ID, status: 200 });
    say({ type: "end", stream: ID, reason: "complete" });
  });
  await all(openSocket(url, { ...SOCKET, token: "a.b-c", protocols: ["mine"] }));
  assert.equal(offered, "sse-sidecar.v1,bearer.a.b-c,mine");
});

for (const code of [1001, 1011, 1013]) {
  test(`a close with ${code} passes: it connects again and resumes, with a query that edges can read`, async (t) => {
    const hellos = [];
    const targets = [];
    const url = await peer(t, ({ socket, say, heard, number, request }) => {
      hellos.push(heard);
      targets.push(request.url);
      say({ type: "open", stream: ID, status: 200, ...(number > 1 && { resumed_from: heard.after }) });
      if (number === 1) return say(event(1)), socket.close(code);
      return say(event(1)), say(event(2)), say({ type: "end", stream: ID, reason: "complete" });
    });
    assert.deepEqual((await all(openSocket(`${url}/chat?a=b`, OPTIONS))).map(({ seq }) => seq), [1, 2]);
    assert.deepEqual(targets, ["/chat?a=b", `/chat?a=b&last_event_id=${ID}.1`]);
    assert.deepEqual(hellos, [{ type: "start", body: ASK }, { type: "resume", stream: ID, after: 1 }]);
  });
}

for (const code of [1008, 1009]) {
  test(`a close with ${code} is an error`, async (t) => {
    let count = 0;
    const url = await peer(t, ({ socket, say }) => {
      count += 1;
      say({ type: "open", stream: ID, status: 200 });
      socket.close(code, "because");
    });
    await assert.rejects(all(openSocket(url, OPTIONS)), { code: `closed-${code}`, message: "because" });
    assert.equal(count, 1);
  });
}

test("a start that is not answered is an error, and is not said again", async (t) => {
  let count = 0;
  const url = await peer(t, ({ socket }) => {
    count += 1;
    socket.terminate();
  });
  await assert.rejects(all(openSocket(url, OPTIONS)), { code: "unreachable", recoverable: true });
  assert.equal(count, 1);
});

test("on a resume, an error that passes is tried again; one that lasts is thrown", async (t) => {
  const url = await peer(t, ({ socket, say, number }) => {
    if (number === 1) return say({ type: "open", stream: ID, status: 200 }), say(event(1)), socket.close(1001);
    if (number === 2) return say({ type: "error", code: "capacity", message: "full", status: 503, recoverable: true });
    return say({ type: "error", code: "gap", message: "gone", status: 410, recoverable: false });
  });
  await assert.rejects(all(openSocket(url, OPTIONS)), { code: "gap", status: 410, stream: ID, seq: 1 });
});

test("a busy bridge is an error with its code", async (t) => {
  const url = await peer(t, ({ say }) => say({ type: "error", code: "busy", message: "one at a time", status: 429, recoverable: true }));
  await assert.rejects(openSocket(url, OPTIONS).opened, { code: "busy", status: 429, recoverable: true });
});

test("a gap is an event, told to the observer, and the numbers go on behind it", async (t) => {
  const url = await peer(t, ({ say }) => {
    say({ type: "open", stream: ID, status: 200 });
    say({ type: "event", id: `${ID}.7`, event: "stream-gap", data: { from: 1, to: 7 } });
    say(event(8));
    say({ type: "end", stream: ID, reason: "complete" });
  });
  const gaps = [];
  const observe = ({ type, from, to }) => type === "gap" && gaps.push([from, to]);
  const events = await all(openSocket(url, { ...OPTIONS, observe }));
  assert.deepEqual(events.map(({ event: name, seq }) => [name, seq]), [["stream-gap", 7], ["message", 8]]);
  assert.deepEqual(gaps, [[1, 7]]);
});

test("a silent socket is asked with a ping, and lost where it does not answer", async (t) => {
  const heardTypes = [];
  const url = await peer(t, ({ say, heard, number }) => {
    heardTypes.push(heard.type);
    if (heard.type === "ping") return number === 1 || say({ type: "pong" });
    say({ type: "open", stream: ID, status: 200 });
    return number === 1 ? say(event(1)) : setTimeout(() => say({ type: "end", stream: ID, reason: "complete" }), 300);
  });
  const drops = [];
  const observe = ({ type, cause }) => type === "drop" && drops.push(cause);
  assert.equal((await all(openSocket(url, { ...OPTIONS, silence: 100, observe }))).length, 1);
  assert.deepEqual(drops, ["nothing came for 100 ms"]);
  assert.ok(heardTypes.filter((type) => type === "ping").length >= 3);
});

test("a socket whose events nobody takes is dropped, and resumed when they are taken", async (t) => {
  const data = "x".repeat(1024 * 1024);
  let from = 0;
  let left;
  const dropped = new Promise((resolve) => (left = resolve));
  const url = await peer(t, ({ socket, say, heard, number }) => {
    from = heard.after ?? 0;
    socket.once("close", left);
    say({ type: "open", stream: ID, status: 200, resumed_from: from });
    for (let n = from + 1; n <= 30; n += 1) say({ ...event(n), data });
    if (number > 1) say({ type: "end", stream: ID, reason: "complete" });
  });
  const drops = [];
  const answer = openSocket(url, { ...OPTIONS, observe: ({ type, cause }) => type === "drop" && drops.push(cause) });
  await soon(dropped, "the loss of a socket of which nobody takes");
  const events = await all(answer);
  assert.deepEqual(events.map(({ seq }) => seq), upTo(30));
  assert.equal(drops[0], "more came than was taken");
  assert.ok(from > 10 && from < 20);
});

test("what is no bridge is told as such", async (t) => {
  const url = await peer(t, ({ socket }) => socket.send("hello"));
  await assert.rejects(openSocket(url, OPTIONS).opened, { code: "bad-frame" });
});

test("nothing is left open", async () => {
  const sockets = [];
  class Noted extends WebSocket {
    constructor(...args) {
      super(...args);
      sockets.push(this);
    }
  }
  await all(openSocket(`${CHAT}?tokens=1&interval=0`, { ...OPTIONS, WebSocket: Noted }));
  await openSocket(`${CHAT}?status=500`, { ...OPTIONS, WebSocket: Noted }).opened.catch(() => {});
  await eventually(() => sockets.every(({ readyState }) => readyState === 3), "closed sockets");
  assert.equal(sockets.length, 2);
});
