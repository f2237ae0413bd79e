/** openStream: what a request becomes, how streams begin and end, and that every event comes once. */

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";

import { openStream, perFrame, StreamError } from "../../../proxy/web/client.js";
import { all, ASK, CHAT, edge, eventually, openAtProvider, origin, QUICK, serve, SIDECAR, soon, stream, test, textOf, upTo, WHOLE } from "./support.mjs";

// ── a whole stream ────────────────────────────────────────────────────────────────────────────────────────────

test("a posted chat comes whole, with ids and numbers, and ends as complete", async () => {
  const answer = openStream(`${CHAT}?interval=0.002`, { body: ASK });
  const { stream: id, status, headers } = await answer.opened;
  const events = await all(answer);

  assert.match(id, /^node-1-[\w-]{22}$/);
  assert.equal(status, 200);
  assert.equal(headers.get("stream-id"), id);
  assert.deepEqual(events.map((event) => event.seq), upTo(WHOLE));
  assert.deepEqual(events.map((event) => event.id), upTo(WHOLE).map((seq) => `${id}.${seq}`));
  assert.match(textOf(events), /^A stream is a river — .* none$/);
  assert.equal(events.at(-1).data, "[DONE]");
  assert.equal(events.at(-1).json, undefined);
  assert.equal(answer.state, "closed");
  assert.equal(answer.seq, WHOLE);
  assert.equal(answer.end.reason, "complete");
  assert.equal(answer.end.last, WHOLE);
});

test("an event's json is parsed once, and its time is that of its read", async () => {
  const before = performance.now();
  const [event] = await all(openStream(`${CHAT}?tokens=1&interval=0`, { body: ASK }));
  assert.equal(event.json, event.json);
  assert.ok(before < event.at && event.at <= performance.now());
});

test("a body that is an object leaves as JSON by POST; any other leaves as it is", async (t) => {
  const bodies = [];
  const { url } = await serve(t, async (req, res) => {
    const body = (await req.toArray()).join("");
    bodies.push([req.method, req.headers["content-type"], req.headers.accept, body]);
    stream(res);
    res.end();
  });
  await all(openStream(url));
  await all(openStream(url, { body: { a: [1] } }));
  await all(openStream(url, { method: "put", body: "{}", headers: { "Content-Type": "x/y", Accept: "*/*" } }));
  await all(openStream(url, { body: new URLSearchParams({ a: "b" }) }));
  assert.deepEqual(bodies, [
    ["GET", undefined, "text/event-stream", ""],
    ["POST", "application/json", "text/event-stream", '{"a":[1]}'],
    ["PUT", "x/y", "*/*", "{}"],
    ["POST", "application/x-www-form-urlencoded;charset=UTF-8", "text/event-stream", "a=b"],
  ]);
});

test("heartbeats are told to the observer, and are no events", async () => {
  const told = [];
  const answer = openStream(`${CHAT}?first_delay=0.5&tokens=1`, { body: ASK, observe: (record) => told.push(record) });
  assert.equal((await all(answer)).length, 4);
  assert.ok(told.filter(({ type, comment }) => type === "heartbeat" && comment === "ping").length >= 1);
  assert.deepEqual(told.filter(({ type }) => type === "state").map(({ state }) => state), ["open", "closed"]);
  const reads = told.filter(({ type }) => type === "read");
  assert.ok(reads.every(({ bytes, at }) => bytes > 0 && at > 0));
  assert.equal(reads.reduce((sum, { events }) => sum + events, 0), 4);
  assert.deepEqual({ ...told.at(-1), at: 0 }, { type: "end", at: 0, reason: "complete", message: "" });
});

// ── answers that are no streams ───────────────────────────────────────────────────────────────────────────────

test("a provider's refusal is an error with its status, its body and its message, and is not asked for again", async () => {
  const answer = openStream(`${CHAT}?status=429`, { body: ASK });
  const error = await answer.opened.catch((reason) => reason);
  assert.ok(error instanceof StreamError);
  assert.equal(error.code, "status");
  assert.equal(error.status, 429);
  assert.equal(error.recoverable, true);
  assert.equal(error.retryAfter, 1000);
  assert.equal(JSON.parse(error.body).error.message, error.message);
  await assert.rejects(all(answer), (thrown) => thrown === error);
  assert.equal(answer.end.reason, "status");
});

test("the sidecar's own problem gives its kind", async () => {
  await assert.rejects(openStream(`${SIDECAR}/nowhere`).opened, { code: "no-route", status: 404 });
});

test("an answer in another type is no stream, though it is a 200", async (t) => {
  const { url } = await serve(t, (req, res) => {
    res.writeHead(200, { "Content-Type": "text/event-streaming" });
    res.end("data: x\n\n");
  });
  await assert.rejects(openStream(url).opened, { code: "not-a-stream", status: 200, body: "data: x\n\n" });
});

test("a body that never ends does not keep the error waiting", async (t) => {
  const { url } = await serve(t, (req, res) => {
    res.writeHead(200, { "Content-Type": "application/x-ndjson" });
    res.write("{}\n");
  });
  await assert.rejects(soon(openStream(url).opened), { code: "not-a-stream", body: "" });
});

test("a POST that gets no answer is an error: nobody knows whether it was worked on, so it is not sent again", async (t) => {
  const { url, requests } = await serve(t, (req) => req.socket.destroy());
  const answer = openStream(url, { body: ASK, ...QUICK });
  await assert.rejects(all(answer), { code: "unreachable", recoverable: true });
  assert.equal(requests.length, 1);
});

test("nobody has to look at opened: no rejection is left alone", async () => {
  openStream(`${CHAT}?status=500`, { body: ASK });
  const other = openStream(`${CHAT}?status=500`, { body: ASK });
  await assert.rejects(all(other));
  await new Promise((wake) => setTimeout(wake, 50)); // an unhandled rejection would fail the test's file
});

// ── broken connections ────────────────────────────────────────────────────────────────────────────────────────

test("a stream that is dropped again and again comes whole, and is asked for once", async () => {
  const told = [];
  const answer = openStream(`${CHAT}?interval=0.005`, { body: ASK, observe: (record) => told.push(record) });
  const events = [];
  for await (const event of answer) {
    events.push(event);
    if (event.seq % 10 === 5) answer.drop();
  }
  assert.deepEqual(events.map((event) => event.seq), upTo(WHOLE));
  const of = (type) => told.filter((record) => record.type === type);
  assert.ok(of("drop").length >= 1);
  assert.equal(of("drop").length, of("resume").length);
  assert.ok(of("drop").every(({ cause }) => cause === "drop()"));
  assert.deepEqual(of("drop").map(({ after }) => after), of("resume").map(({ after }) => after));
  assert.ok(of("state").some(({ state }) => state === "waiting"));
});

test("a connection that breaks within a block, at any byte, loses nothing", async (t) => {
  const { url, requests } = await edge(t, ({ pass, number }) => pass({ after: 211 + 97 * number }));
  const events = await all(openStream(`${url}/v1/chat/completions?interval=0`, { body: ASK, ...QUICK }));
  assert.deepEqual(events.map((event) => event.seq), upTo(WHOLE));
  assert.ok(requests.length > 4);
  assert.deepEqual([...new Set(requests.slice(1).map(({ method }) => method))], ["GET"]);
});

test("an edge that ends a stream in good order before it is over deceives nobody", async (t) => {
  const told = [];
  const { url } = await edge(t, ({ pass }) => pass({ after: 1500, how: "end" }));
  const observe = (record) => told.push(record);
  const answer = openStream(`${url}/v1/chat/completions?interval=0.003`, { body: ASK, observe });
  const events = await all(answer);
  assert.deepEqual(events.map((event) => event.seq), upTo(WHOLE));
  assert.equal(answer.end.reason, "complete");
  assert.ok(told.filter(({ type }) => type === "drop").length >= 3);
});

test("a stream without ids in its blocks is counted: Gemini's", async (t) => {
  const { url, requests } = await edge(t, ({ pass }) => pass({ after: 1700 }));
  const path = "/v1beta/models/gemini:streamGenerateContent?alt=sse&interval=0";
  const answer = openStream(`${url}${path}`, { body: { contents: [] }, ...QUICK });
  const events = await all(answer);
  const whole = await all(openStream(`${SIDECAR}${path}`, { body: { contents: [] } }));
  assert.deepEqual(events.map((event) => event.json.candidates), whole.map((event) => event.json.candidates));
  assert.deepEqual(events.map((event) => event.seq), upTo(whole.length));
  assert.ok(events.every((event) => event.id === ""));
  assert.ok(requests.length > 3);
});

test("a stream with the app's own ids is resumed by its number, since not every event has an id", async (t) => {
  const { url } = await origin(t, (req, res) => {
    stream(res);
    for (const n of upTo(9)) res.write(`${n % 3 === 1 ? `id: app-${n}\n` : ""}data: ${n}\n\n`);
    res.end();
  });
  const cutting = await edge(t, ({ pass }) => pass({ after: 40 }));
  const answer = openStream(`${cutting.url}/o/upstream-ids`, QUICK);
  const events = await all(answer);
  assert.deepEqual(events.map((event) => event.data), upTo(9).map(String));
  assert.deepEqual(events.map((event) => event.seq), upTo(9));
  assert.equal(events[8].id, "app-7");
  assert.ok(cutting.requests.length > 2);
  assert.equal(url, `${SIDECAR}/o`);
});

test("headers leave with a resume, credentials and mode too; what described the body does not", async (t) => {
  const asked = [];
  const fetching = (url, init) => {
    asked.push([init.method, init.credentials, Object.fromEntries(init.headers), init.body]);
    return fetch(url, init);
  };
  await origin(t, (req, res) => {
    stream(res);
    res.write("data: 1\n\n");
    setTimeout(() => res.end("data: 2\n\n"), 60);
  });
  const headers = { "X-User": "ann", "Idempotency-Key": "k", Authorization: "Bearer t" };
  const answer = openStream(`${SIDECAR}/o/principal`, { body: {}, headers, credentials: "include", fetch: fetching, ...QUICK });
  for await (const event of answer) if (event.seq === 1) answer.drop();
  const kept = { accept: "text/event-stream", authorization: "Bearer t", "x-user": "ann" };
  const first = { ...kept, "content-type": "application/json", "idempotency-key": "k" };
  assert.deepEqual(asked[0], ["POST", "include", first, "{}"]);
  for (const resumed of asked.slice(1)) assert.deepEqual(resumed, ["GET", "include", kept, undefined]);
  assert.ok(asked.length >= 2);
});

test("headers that the caller gave to one origin do not follow a redirect to another", async (t) => {
  const other = await edge(t, ({ pass, number }) => pass(number === 1 ? { after: 900 } : {}));
  const first = await serve(t, (req, res) => {
    res.writeHead(307, { Location: `${other.url}${req.url}` });
    res.end();
  });
  const headers = { Authorization: "Bearer secret", "X-Key": "secret" };
  const url = `${first.url}/v1/chat/completions?interval=0`;
  const events = await all(openStream(url, { body: ASK, headers, ...QUICK }));
  assert.equal(events.length, WHOLE);
  for (const { headers: sent } of other.requests.slice(1)) {
    assert.equal(sent.authorization, undefined);
    assert.equal(sent["x-key"], undefined);
  }
});

for (const [what, base, path] of [
  ["leads to a path", () => "", "/prefix/_streams"],
  ["leads to another origin, whose business the stream is not,", (other) => other, "/_streams"],
]) {
  test(`a link that ${what} is heeded as it should be`, async (t) => {
    const id = "abcdefghijklmnopqrstuv";
    const other = await serve(t, (req, res) => res.end());
    const { url, requests } = await serve(t, (req, res, number) => {
      if (number > 1) return res.writeHead(204, { "Stream-Id": id }).end();
      const home = `${base(other.url)}/prefix/_streams/${id}`;
      stream(res, { "Stream-Id": id, Link: `<${home}>; rel="resume", <${home}/cancel>; rel="cancel"` });
      res.write(`id: ${id}.1\ndata: 1\n\n`);
      return setTimeout(() => res.destroy(), 20);
    });
    const answer = openStream(`${url}/chat`, { body: {}, ...QUICK });
    assert.equal((await all(answer)).length, 1);
    assert.deepEqual(requests.map((req) => req.url), ["/chat", `${path}/${id}?after=1`, `${path}/${id}/state`]);
    assert.equal(other.requests.length, 0);
    assert.equal(answer.end.reason, "closed");
  });
}

test("a stream that the provider broke is an error with the reason, after all that came", async () => {
  const events = [];
  const answer = openStream(`${CHAT}?drop_at=7&interval=0`, { body: ASK });
  const reading = (async () => {
    for await (const event of answer) events.push(event);
  })();
  await assert.rejects(reading, { code: "truncated", seq: 8 });
  assert.equal(events.at(-1).json.error.code, "truncated");
  assert.equal(answer.end.reason, "truncated");
});

test("so is one of an app's that broke, though its log is all there", async (t) => {
  const { url } = await origin(t, (req, res) => {
    stream(res);
    res.write("data: 1\n\ndata: 2");
    setTimeout(() => res.destroy(), 20);
  });
  await assert.rejects(all(openStream(`${url}/plain`, { body: {}, ...QUICK })), { code: "truncated", seq: 1 });
});

test("faults of an edge pass: it is asked again, and Retry-After is obeyed", async (t) => {
  const times = [];
  const { url } = await edge(t, ({ req, res, pass, number }) => {
    times.push(performance.now());
    if (number === 1) return pass({ after: 1000 });
    if (number === 2) return res.writeHead(503, { "Retry-After": "1" }).end("full");
    if (number === 3) return res.writeHead(502).end();
    if (number === 4) return req.socket.destroy();
    return pass();
  });
  const events = await all(openStream(`${url}/v1/chat/completions?interval=0`, { body: ASK, ...QUICK }));
  assert.deepEqual(events.map((event) => event.seq), upTo(WHOLE));
  assert.ok(times[2] - times[1] >= 1000);
});

for (const how of ["break", "end"]) {
  const away = (res, number) => {
    if (number < 2 || number > 4) return false;
    stream(res);
    res.end("retry: 5\n\n"); // to a resume as to the stream's state, as the shipped edges do
    return true;
  };

  test(`an edge without its sidecar, which tells to come again, is no end: it goes on (${how})`, async (t) => {
    const { url } = await edge(t, ({ res, pass, number }) => away(res, number) || pass(number === 1 ? { after: 1500, how } : {}));
    const answer = openStream(`${url}/v1/chat/completions?interval=0`, { body: ASK, ...QUICK });
    assert.deepEqual((await all(answer)).map((event) => event.seq), upTo(WHOLE));
    assert.equal(answer.end.reason, "complete");
  });

  test(`nor is a restarted sidecar's 404 behind it: that is an error (${how})`, async (t) => {
    const { url } = await edge(t, ({ req, res, pass, number }) => {
      if (number > 4) req.url = req.url.replace(/node-1-[\w-]{22}/, "x".repeat(22));
      return away(res, number) || pass(number === 1 ? { after: 1500, how } : {});
    });
    const answer = openStream(`${url}/v1/chat/completions?interval=0`, { body: ASK, ...QUICK });
    await assert.rejects(all(answer), { code: "unknown-stream", status: 404 });
    assert.equal(answer.end.reason, "unknown-stream");
  });
}

test("an edge that never stops telling to come again is given up, as one that nothing comes through", async (t) => {
  const { url } = await edge(t, ({ res, pass, number }) => {
    if (number === 1) return pass({ after: 1500, how: "end" });
    stream(res);
    return res.end("retry: 1\n\n");
  });
  const answer = openStream(`${url}/v1/chat/completions?interval=0`, { body: ASK, retry: { delay: 1, max: 2, attempts: 3 } });
  await assert.rejects(soon(all(answer)), { code: "unreachable" });
});

test("after some attempts in vain it gives up, and says where it stood", async (t) => {
  const { url, requests } = await edge(t, ({ req, res, pass, number }) =>
    number === 1 ? pass({ after: 2000 }) : res.writeHead(503).end("full"),
  );
  const answer = openStream(`${url}/v1/chat/completions?interval=0`, { body: ASK, retry: { delay: 1, max: 2, attempts: 3 } });
  const error = await all(answer).catch((reason) => reason);
  assert.equal(error.status, 503);
  assert.ok(error.seq > 0);
  assert.equal(error.stream, answer.stream);
  assert.equal(requests.length, 4);
  const rest = await all(openStream(null, { stream: error.stream, after: error.seq, base: SIDECAR }));
  assert.deepEqual(rest.map((event) => event.seq), upTo(WHOLE).slice(error.seq));
});

test("connections through which nothing comes are attempts in vain, too", async (t) => {
  const { url, requests } = await edge(t, ({ pass, number }) => pass({ after: number === 1 ? 2000 : 1, how: "end" }));
  const answer = openStream(`${url}/v1/chat/completions?interval=0`, { body: ASK, retry: { delay: 1, max: 2, attempts: 3 } });
  await assert.rejects(soon(all(answer)), { code: "unreachable" });
  assert.ok(requests.length < 10);
});

test("an events gap under `gap: fail` is an error; one that is signalled is an event, and the count goes on behind it", async (t) => {
  let go;
  await origin(t, (req, res) => {
    stream(res);
    res.write("data: 1\n\n");
    go = () => res.end(upTo(20).slice(1).map((n) => `data: ${n}\n\n`).join(""));
  });
  const read = async (path) => {
    let number = 0;
    const closing = await edge(t, ({ res, pass }) => {
      number += 1;
      if (number === 1) return pass({ after: 60 });
      if (number === 2) return go(), setTimeout(() => res.writeHead(502).end(), 50);
      return pass();
    });
    const told = [];
    const answer = openStream(`${closing.url}/o/${path}`, { body: {}, ...QUICK, observe: (record) => told.push(record) });
    return { answer, told };
  };
  const failing = await read("gap");
  await assert.rejects(all(failing.answer), { code: "gap", status: 410, seq: 1 });

  const { answer, told } = await read("signal");
  const events = await all(answer);
  assert.deepEqual(events.map((event) => [event.event, event.seq]), [
    ["message", 1],
    ["stream-gap", 16],
    ...[17, 18, 19, 20].map((seq) => ["message", seq]),
  ]);
  assert.deepEqual(events[1].json, { from: 2, to: 16 });
  assert.deepEqual(told.filter(({ type }) => type === "gap").map(({ from, to }) => [from, to]), [[2, 16]]);
});

test("the stream's own retry decides when it comes back", async (t) => {
  const times = [];
  await origin(t, (req, res) => {
    stream(res);
    res.write("retry: 300\ndata: 1\n\n");
    setTimeout(() => res.end("data: 2\n\n"), 50);
  });
  const { url } = await edge(t, ({ pass, number }) => {
    times.push(performance.now());
    pass(number === 1 ? { after: 60 } : {});
  });
  assert.equal((await all(openStream(`${url}/o/plain`, { body: {}, ...QUICK }))).length, 2);
  assert.ok(times[1] - times[0] >= 300);
});

test("a silent connection is lost, where it can be resumed", async (t) => {
  const { url, requests } = await edge(t, ({ res, pass, number }) => {
    if (number !== 1) return pass();
    return pass({ after: 1e9 }), res.on("pipe", () => {}), setTimeout(() => (res.write = () => true), 30);
  });
  const told = [];
  const options = { body: ASK, silence: 250, ...QUICK, observe: (record) => told.push(record) };
  const events = await all(openStream(`${url}/v1/chat/completions?interval=0.01`, options));
  assert.deepEqual(events.map((event) => event.seq), upTo(WHOLE));
  assert.deepEqual(told.filter(({ type }) => type === "drop").map(({ cause }) => cause), ["nothing came for 250 ms"]);
  assert.ok(requests.length >= 2);
});

test("a resume that is never answered is lost, too; so is a state that is not, or not wholly", async (t) => {
  const hanging = [];
  const { url, requests } = await edge(t, ({ req, res, pass, number }) => {
    if (number === 1) return pass({ after: 1500 });
    if (number === 3) return pass({ after: 1500, how: "end" });
    if (![2, 4, 5].includes(number)) return pass();
    hanging.push(new URL(req.url, url).pathname.split("/").at(-1) === "state" ? "state" : "resume");
    return number === 5 && (res.writeHead(200, { "Content-Type": "application/json" }), res.write("{"));
  });
  const answer = openStream(`${url}/v1/chat/completions?interval=0`, { body: ASK, silence: 300, ...QUICK });
  const events = await soon(all(answer));
  assert.deepEqual(events.map((event) => event.seq), upTo(WHOLE));
  assert.deepEqual(hanging, ["resume", "state", "state"]);
  assert.ok(requests.length > 5);
});

test("drop gives up an attempt that hangs, also where silence is no loss", async (t) => {
  const { url, requests } = await edge(t, ({ pass, number }) => number !== 2 && pass(number === 1 ? { after: 1500 } : {}));
  const answer = openStream(`${url}/v1/chat/completions?interval=0`, { body: ASK, silence: Infinity, ...QUICK });
  const reading = all(answer);
  await eventually(() => requests.length === 2, "the attempt that hangs");
  answer.drop();
  assert.deepEqual((await soon(reading)).map((event) => event.seq), upTo(WHOLE));
});

for (const [what, path, body] of [
  ["with ids", "/v1/chat/completions?interval=0", ASK],
  ["that are counted", "/v1beta/models/gemini:streamGenerateContent?alt=sse&interval=0", { contents: [] }],
]) {
  test(`events ${what} come once, also where an edge loses the query of a resume`, async (t) => {
    let allowed = 2000;
    const { url } = await edge(t, ({ req, pass }) => {
      if (req.url.startsWith("/_streams/")) req.url = req.url.replace(/\?.*/, "");
      pass({ after: (allowed += 2000) });
    });
    const answer = openStream(`${url}${path}`, { body, ...QUICK });
    const events = await all(answer);
    const whole = await all(openStream(SIDECAR, { stream: answer.stream }));
    assert.deepEqual(events.map(({ seq, data }) => [seq, data]), whole.map(({ seq, data }) => [seq, data]));
    assert.equal(events.length, answer.end.last);
  });
}

test("where an edge removes the sidecar's headers, the ids tell where to resume", async (t) => {
  const { url } = await edge(t, ({ pass }) => pass({ after: 3000, drop: ["stream-id", "link", "stream-resumed-from"] }));
  const events = await all(openStream(`${url}/v1/chat/completions?interval=0`, { body: ASK, ...QUICK }));
  assert.deepEqual(events.map((event) => event.seq), upTo(WHOLE));
});

// ── streams that do not come through a sidecar ────────────────────────────────────────────────────────────────

test("a GET goes on with the last id, as an EventSource would", async (t) => {
  const { url, requests } = await serve(t, (req, res, number) => {
    stream(res);
    res.write(`id: ${number}\ndata: ${number}\n\n`);
    setTimeout(() => (number < 3 ? res.destroy() : res.end()), 20);
  });
  const answer = openStream(url, QUICK);
  const events = await all(answer);
  assert.deepEqual(events.map(({ id, data }) => [id, data]), [["1", "1"], ["2", "2"], ["3", "3"]]);
  assert.deepEqual(requests.map((req) => req.headers["last-event-id"]), [undefined, "1", "2"]);
  assert.equal(answer.end.reason, "closed");
  assert.equal(answer.stream, null);
});

for (const [what, options] of [["a POST", { body: {} }], ["a GET without ids", {}]]) {
  test(`${what} that breaks is an error that says how much had come`, async (t) => {
    const { url, requests } = await serve(t, (req, res) => {
      stream(res);
      res.write("data: 1\n\ndata: 2\n\n");
      setTimeout(() => res.destroy(), 20);
    });
    await assert.rejects(all(openStream(url, { ...options, ...QUICK })), { code: "broken", seq: 2, stream: null });
    assert.equal(requests.length, 1);
  });
}

test("the caller's own Last-Event-ID is kept until the server gives one, and is no place behind events without", async (t) => {
  const { url, requests } = await serve(t, (req, res, number) => {
    stream(res);
    res.write(number === 1 ? ": hello\n" : "data: 1\n\n");
    setTimeout(() => res.destroy(), 20);
  });
  const answer = openStream(url, { headers: { "Last-Event-ID": "42" }, ...QUICK });
  await assert.rejects(all(answer), { code: "broken", seq: 1 });
  assert.deepEqual(requests.map((req) => req.headers["last-event-id"]), ["42", "42"]);
});

test("so is a stream that the sidecar does not record; whole, it is whole", async (t) => {
  await origin(t, (req, res) => {
    stream(res);
    res.write("data: 1\n\n");
    setTimeout(() => res.end("data: 2\n\n"), 50);
  });
  const whole = openStream(`${SIDECAR}/o/off`, { body: {} });
  assert.deepEqual((await all(whole)).map(({ data }) => data), ["1", "2"]);
  assert.ok(["complete", "closed"].includes(whole.end.reason));
  const broken = openStream(`${SIDECAR}/o/off`, { body: {}, ...QUICK });
  await broken.opened;
  setTimeout(() => broken.drop(), 10);
  await assert.rejects(all(broken), { code: "broken", stream: broken.stream });
});

test("an answer of nothing but `retry` asks to come again", async (t) => {
  const { url, requests } = await serve(t, (req, res, number) => {
    stream(res);
    res.end(number < 3 ? "retry: 5\n\n" : "data: x\n\n");
  });
  assert.equal((await all(openStream(url))).length, 1);
  assert.equal(requests.length, 3);
});

// ── feeds ─────────────────────────────────────────────────────────────────────────────────────────────────────

test("a feed goes on when its stream is over, with the app's last id, until it is told to stop", async (t) => {
  const asked = [];
  await origin(t, (req, res) => {
    asked.push(req.headers["last-event-id"]);
    if (asked.length > 3) return res.writeHead(204).end();
    stream(res);
    res.write(`id: app-${asked.length}\ndata: ${asked.length}\n\n`);
    return setTimeout(() => (asked.length === 1 ? res.destroy() : res.end()), 20);
  });
  const answer = openStream(`${SIDECAR}/o/plain`, { feed: true, ...QUICK });
  const events = await all(answer);
  assert.deepEqual(events.map((event) => event.data), ["1", "2", "3"]);
  assert.deepEqual(asked, [undefined, "app-1", "app-2", "app-3"]);
  assert.equal(answer.end.reason, "closed");
});

test("a feed that a restarted sidecar has forgotten begins anew, after word of a gap", async (t) => {
  await origin(t, (req, res) => {
    stream(res);
    res.write("data: 1\n\n");
  });
  let old = true;
  const { url } = await edge(t, ({ req, res, pass }) => {
    if (req.url.startsWith("/_streams/") && old) {
      old = false;
      return res.writeHead(404, { "Content-Type": "application/problem+json" }).end("{}");
    }
    if (req.headers["last-event-id"]) req.headers["last-event-id"] = `${"x".repeat(22)}.5`;
    return pass();
  });
  const answer = openStream(`${url}/o/plain`, { feed: true, ...QUICK });
  const events = [];
  const streams = new Set();
  for await (const event of answer) {
    events.push([event.event, event.data]);
    streams.add(answer.stream);
    if (events.length === 1) answer.drop();
    if (events.length === 3) break;
  }
  assert.deepEqual(events, [["message", "1"], ["stream-gap", '{"from":6,"to":null}'], ["message", "1"]]);
  assert.equal(streams.size, 2);
});

test("without feed, a GET that is over is over: a chat does not run twice", async (t) => {
  const { url, requests } = await origin(t, (req, res) => {
    stream(res);
    res.end("data: 1\n\n");
  });
  const answer = openStream(`${url}/plain`, QUICK);
  assert.equal((await all(answer)).length, 1);
  assert.equal(answer.end.reason, "complete");
  assert.equal(requests.length, 1);
});

test("a feed whose first answer is 204 is over, as an EventSource is", async (t) => {
  const { url, requests } = await serve(t, (req, res) => res.writeHead(204).end());
  const answer = openStream(url, { feed: true, ...QUICK });
  assert.deepEqual(await all(answer), []);
  assert.equal((await answer.opened).status, 204);
  assert.equal(answer.end.reason, "closed");
  assert.equal(requests.length, 1);
});

test("only a GET can be a feed", () => {
  assert.throws(() => openStream(SIDECAR, { feed: true, body: {} }), TypeError);
});

// ── a second viewer ───────────────────────────────────────────────────────────────────────────────────────────

test("a stream can be followed by its id: from its beginning, from an event on, from now on, and after its end", async () => {
  const first = openStream(`${CHAT}?interval=0.005`, { body: ASK });
  const follow = (after) => all(openStream(null, { stream: first.stream, after, base: SIDECAR }));
  let following;
  for await (const { seq } of first) if (seq === 20) following = [follow(0), follow(15), follow("now")];
  const [whole, rest, now] = await Promise.all(following);
  assert.deepEqual(whole.map((event) => event.seq), upTo(WHOLE));
  assert.deepEqual(rest.map((event) => event.seq), upTo(WHOLE).slice(15));
  assert.deepEqual(now.map((event) => event.seq), upTo(WHOLE).slice(-now.length));
  assert.ok(now.length > 0 && now.length <= 23);

  const late = openStream(`${SIDECAR}/v1/whatever`, { stream: first.stream, after: WHOLE });
  assert.deepEqual(await all(late), []);
  assert.equal((await late.opened).status, 204);
  assert.equal(late.end.reason, "complete");
  await assert.rejects(all(openStream(SIDECAR, { stream: "x".repeat(22) })), { code: "unknown-stream", status: 404 });
});

test("a viewer from now on stands behind where it began, also when it is dropped", async () => {
  const first = openStream(`${CHAT}?interval=0.01`, { body: ASK });
  const events = [];
  for await (const event of first) {
    if (event.seq < 10) continue;
    const viewer = openStream(SIDECAR, { stream: first.stream, after: "now" });
    for await (const seen of viewer) if (events.push(seen.seq) % 10 === 0) viewer.drop();
    break;
  }
  assert.deepEqual(events, upTo(WHOLE).slice(events[0] - 1));
  assert.ok(events[0] >= 10);
});

test("so it does where it is dropped before anything came", async (t) => {
  let goOn;
  await origin(t, (req, res) => {
    stream(res);
    res.write("data: 1\n\ndata: 2\n\n");
    goOn = () => res.end("data: 3\n\n");
  });
  const told = [];
  const first = openStream(`${SIDECAR}/o/plain`, { body: {} });
  for await (const { seq } of first) {
    if (seq !== 2) continue;
    const viewer = openStream(SIDECAR, { stream: first.stream, after: "now", observe: ({ type }) => told.push(type), ...QUICK });
    const reading = all(viewer);
    await viewer.opened;
    viewer.drop();
    await eventually(() => told.includes("resume"), "the resume");
    goOn();
    assert.deepEqual((await reading).map((event) => event.seq), [3]);
  }
});

test("seq is what the loop has had, also where many events come in one read; one that comes twice there comes once", async (t) => {
  const id = "abcdefghijklmnopqrstuv";
  const { url } = await serve(t, (req, res) => {
    stream(res, { "Stream-Id": id });
    res.write([1, 2, 3, 2, 3, 4, 5].map((n) => `id: ${id}.${n}\ndata: ${n}\n\n`).join(""));
  });
  const reads = [];
  const answer = openStream(url, { observe: ({ type, events }) => type === "read" && reads.push(events) });
  const had = [];
  for await (const { seq } of answer) {
    had.push([seq, answer.seq]);
    if (seq === 4) break;
  }
  assert.deepEqual(had, upTo(4).map((seq) => [seq, seq]));
  assert.deepEqual(reads, [5]);
  assert.equal(answer.seq, 4);
});

test("a viewer's headers are for the origin of its `base`, too, and go with each resume", async (t) => {
  const first = openStream(`${CHAT}?interval=0`, { body: ASK });
  await all(first);
  const { url, requests } = await edge(t, ({ pass, number }) => pass(number === 1 ? { after: 1500 } : {}));
  const elsewhere = "http://app.invalid/";
  const viewer = openStream(elsewhere, { stream: first.stream, base: url, headers: { Authorization: "Bearer t" }, ...QUICK });
  assert.deepEqual((await all(viewer)).map(({ seq }) => seq), upTo(WHOLE));
  assert.ok(requests.length > 1);
  assert.ok(requests.every((req) => req.headers.authorization === "Bearer t"));
});

// ── the reader has enough ─────────────────────────────────────────────────────────────────────────────────────

test("cancel stops the provider at once, ends the iteration, and can be said again", async () => {
  const answer = openStream(`${CHAT}?endless=1&interval=0.005`, { body: ASK });
  let count = 0;
  for await (const event of answer) {
    count += 1;
    if (event.seq === 5) {
      const [one, two] = await Promise.all([answer.cancel(), answer.cancel()]);
      assert.equal(one, two);
    }
  }
  assert.equal(count, 5);
  assert.equal(answer.end.reason, "cancelled");
  assert.equal(answer.end.message, "cancelled by the client");
  assert.equal(await answer.cancel(), answer.end);
  await eventually(async () => (await openAtProvider()) === 0, "the provider's rest");
});

test("cancel while the next event is waited for ends that wait", async () => {
  const answer = openStream(`${CHAT}?hang_at=2`, { body: ASK });
  const reading = all(answer);
  await eventually(() => answer.seq === 2, "the second event");
  await answer.cancel();
  assert.equal((await soon(reading)).length, 2);
});

test("cancel before there is an answer takes the request back", async () => {
  const answer = openStream(`${CHAT}?headers_delay=30`, { body: ASK });
  await eventually(async () => (await openAtProvider()) === 1, "the request at the provider");
  assert.equal((await answer.cancel()).reason, "cancelled");
  await assert.rejects(answer.opened, { code: "cancelled" });
  assert.deepEqual(await all(answer), []);
  await eventually(async () => (await openAtProvider()) === 0, "the provider's rest");
});

test("cancel between two connections stops the stream, and nobody reconnects", async () => {
  const answer = openStream(`${CHAT}?endless=1&interval=0.005`, { body: ASK, retry: { delay: 60_000 } });
  const reading = (async () => {
    for await (const event of answer) if (event.seq === 3) answer.drop();
  })();
  await eventually(() => answer.state === "waiting", "the pause");
  assert.equal((await answer.cancel()).reason, "cancelled");
  await soon(reading);
  await eventually(async () => (await openAtProvider()) === 0, "the provider's rest");
});

test("cancel after the end changes nothing", async () => {
  const answer = openStream(`${CHAT}?tokens=1&interval=0`, { body: ASK });
  await all(answer);
  assert.equal((await answer.cancel()).reason, "complete");
});

test("cancel after the reader gave up stops the stream all the same; its loop's error stays the end", async (t) => {
  const { url } = await edge(t, ({ req, res, pass, number }) => {
    if (number === 1) return pass({ after: 2000 });
    return req.method === "POST" ? pass() : res.writeHead(503).end();
  });
  const answer = openStream(`${url}/v1/chat/completions?endless=1&interval=0.005`, { body: ASK, retry: { delay: 1, max: 2, attempts: 2 } });
  await assert.rejects(all(answer), { code: "status", status: 503 });
  assert.equal(await openAtProvider(), 1);
  const end = await answer.cancel();
  assert.equal(end.reason, "cancelled");
  assert.equal(end.message, "cancelled by the client");
  assert.equal(answer.end.reason, "status");
  assert.equal(await answer.cancel(), end);
  await eventually(async () => (await openAtProvider()) === 0, "the provider's rest");
});

test("cancel where there was no stream asks for nothing", async (t) => {
  const { url, requests } = await serve(t, (req, res) => res.writeHead(429).end());
  const answer = openStream(url, { body: {} });
  await assert.rejects(all(answer), { code: "status" });
  assert.equal(await answer.cancel(), answer.end);
  assert.equal(answer.end.reason, "status");
  assert.equal(requests.length, 1);
});

test("a cancel that could not be told is an error, and can be tried again", async (t) => {
  let deaf = true;
  const { url } = await edge(t, ({ req, res, pass }) => (req.method === "POST" && deaf && req.url.endsWith("/cancel") ? res.writeHead(502).end() : pass()));
  const answer = openStream(`${url}/v1/chat/completions?endless=1`, { body: ASK });
  await answer.opened;
  await assert.rejects(answer.cancel(), { code: "cancel-failed" });
  assert.equal(await openAtProvider(), 1);
  deaf = false;
  assert.equal((await answer.cancel()).reason, "cancelled");
  await eventually(async () => (await openAtProvider()) === 0, "the provider's rest");
});

for (const [when, query, ready] of [
  ["before the head", "headers_delay=30", () => true],
  ["while events are waited for", "hang_at=2", (answer) => answer.seq === 2],
  ["between two connections", "endless=1&interval=0.005", (answer) => (answer.seq > 2 && answer.drop(), answer.state === "waiting")],
]) {
  test(`abort ${when} ends the iteration with the signal's reason, and cancels nothing`, async () => {
    const controller = new AbortController();
    const answer = openStream(`${CHAT}?${query}`, { body: ASK, signal: controller.signal, retry: { delay: 60_000 } });
    const reading = all(answer);
    reading.catch(() => {});
    await eventually(() => ready(answer), "the moment");
    const reason = new Error("enough");
    controller.abort(reason);
    await assert.rejects(soon(reading), (error) => error === reason);
    assert.equal(answer.end.reason, "aborted");
    assert.equal(answer.state, "closed");
    if (!answer.stream) return assert.rejects(answer.opened, (error) => error === reason);
    const state = await (await fetch(`${SIDECAR}/_streams/${answer.stream}/state`)).json();
    assert.notEqual(state.state, "finished");
    return fetch(`${SIDECAR}/_streams/${answer.stream}`, { method: "DELETE" });
  });
}

test("a signal that is aborted already lets nothing leave", async (t) => {
  const { url, requests } = await serve(t, (req, res) => res.end());
  await assert.rejects(all(openStream(url, { signal: AbortSignal.abort() })), { name: "AbortError" });
  assert.equal(requests.length, 0);
});

test("a signal that outlives many answers does not keep them", async () => {
  const { signal } = new AbortController();
  for (const query of ["tokens=1&interval=0", "status=500"]) {
    await all(openStream(`${CHAT}?${query}`, { body: ASK, signal })).catch(() => {});
  }
  assert.deepEqual(getEventListeners(signal, "abort"), []);
});

test("to leave the loop closes the connection, and the stream lives on, until it is cancelled after all", async () => {
  const answer = openStream(`${CHAT}?endless=1&interval=0.005`, { body: ASK });
  for await (const event of answer) if (event.seq === 3) break;
  assert.equal(answer.end.reason, "left");
  const state = async () => (await (await fetch(`${SIDECAR}/_streams/${answer.stream}/state`)).json()).state;
  await eventually(async () => (await state()) === "lingering", "its linger");
  assert.equal((await answer.cancel()).reason, "cancelled");
  assert.equal(await state(), "finished");
});

test("whenever the reader stops, nothing is asked for any more", async () => {
  const late = [];
  const stopAfter = async (wait) => {
    const asking = (url, init) => {
      if (answer.end && init.method === "GET") late.push(String(url));
      return fetch(url, init);
    };
    const answer = openStream(`${CHAT}?interval=0.002`, { body: ASK, fetch: asking, retry: { delay: 1 } });
    setTimeout(() => answer.cancel(), wait);
    for await (const event of answer) if (event.seq % 4 === 0) answer.drop();
    return answer.end.reason;
  };
  const reasons = await soon(Promise.all(upTo(40).map((number) => stopAfter(5 * number))));
  assert.ok(reasons.filter((reason) => reason === "cancelled").length > 10);
  assert.deepEqual(late, []);
  await eventually(async () => (await openAtProvider()) === 0, "the provider's rest");
});

for (const stop of ["abort", "cancel"]) {
  test(`${stop}: the observer is told of the end last, and of no loss behind it`, async () => {
    const told = [];
    const controller = new AbortController();
    const options = { signal: controller.signal, observe: ({ type }) => told.push(type) };
    const answer = openStream(`${CHAT}?hang_at=2`, { body: ASK, ...options });
    const reading = all(answer).catch(() => {});
    await eventually(() => answer.seq === 2, "the second event");
    if (stop === "abort") controller.abort();
    await answer.cancel();
    await soon(reading);
    assert.equal(told.at(-1), "end");
    assert.ok(!told.includes("drop"), String(told));
  });
}

test("a stop between the question for the state and the resume lets no resume leave", async (t) => {
  const controller = new AbortController();
  const { url, requests } = await edge(t, ({ pass }) => pass({ after: 1500, how: "end" }));
  const observe = ({ type }) => type === "drop" && controller.abort();
  const options = { body: ASK, signal: controller.signal, observe, ...QUICK };
  await assert.rejects(all(openStream(`${url}/v1/chat/completions?interval=0`, options)), { name: "AbortError" });
  await new Promise((wake) => setTimeout(wake, 50)); // for what should not leave
  assert.deepEqual(requests.map((req) => req.method + req.url.replace(/.*\//, " ")), ["POST completions?interval=0", "GET state"]);
});

test("return() does not wait for an event that never comes", async () => {
  const answer = openStream(`${CHAT}?hang_at=0`, { body: ASK });
  await answer.opened;
  const iterator = answer[Symbol.asyncIterator]();
  const next = iterator.next();
  await soon(iterator.return());
  assert.equal((await soon(next)).done, true);
  await fetch(`${SIDECAR}/_streams/${answer.stream}`, { method: "DELETE" });
});

test("an answer is read once", async () => {
  const answer = openStream(`${CHAT}?tokens=1&interval=0`, { body: ASK });
  const reading = all(answer);
  assert.throws(() => answer[Symbol.asyncIterator](), /open a second one/);
  await reading;
});

test("nothing is read ahead: a reader that stops makes the stream wait", async (t) => {
  const told = [];
  const piece = `data: ${"x".repeat(65_536)}\n\n`;
  let written = 0;
  const { url } = await serve(t, (req, res) => {
    stream(res);
    const more = () => {
      while (res.write(piece)) written += piece.length;
      written += piece.length;
    };
    res.on("drain", more);
    more();
  });
  const answer = openStream(url, { observe: ({ type, bytes }) => type === "read" && told.push(bytes) });
  const iterator = answer[Symbol.asyncIterator]();
  await iterator.next();
  let before = -1;
  await eventually(async () => {
    if (before === written) return true;
    before = written;
    await new Promise((wake) => setTimeout(wake, 100));
    return false;
  }, "the sender's rest");
  assert.ok(told.reduce((sum, bytes) => sum + bytes, 0) < 300_000);
  assert.ok(written < 32 * 1024 * 1024, `${written} bytes were written to one who does not read`);
  await iterator.return();
});

// ── bundles ───────────────────────────────────────────────────────────────────────────────────────────────────

test("perFrame bundles what has come, keeps the order, and hands on what came before an error", async () => {
  const sizes = [];
  const events = [];
  const answer = openStream(`${CHAT}?tokens=400&interval=0.0005`, { body: ASK });
  for await (const batch of perFrame(answer)) {
    sizes.push(batch.length);
    events.push(...batch);
  }
  assert.deepEqual(events.map((event) => event.seq), upTo(403));
  assert.ok(sizes.length < 200 && Math.max(...sizes) > 1, String(sizes));

  const some = [];
  const broken = (async () => {
    for await (const batch of perFrame(openStream(`${CHAT}?drop_at=7&interval=0`, { body: ASK }))) some.push(...batch);
  })();
  await assert.rejects(broken, { code: "truncated" });
  assert.equal(some.length, 8);
});

test("to leave perFrame leaves the answer", async () => {
  const answer = openStream(`${CHAT}?hang_at=3&interval=0`, { body: ASK });
  for await (const batch of perFrame(answer)) if (batch.length) break;
  assert.equal(answer.end.reason, "left");
  await fetch(`${SIDECAR}/_streams/${answer.stream}`, { method: "DELETE" });
});

test("an observer that fails does not break the stream", async () => {
  const reported = [];
  globalThis.reportError = ({ message }) => reported.push(message);
  const observe = () => {
    throw new Error("the plot is full");
  };
  assert.equal((await all(openStream(`${CHAT}?tokens=1&interval=0`, { body: ASK, observe }))).length, 4);
  delete globalThis.reportError;
  assert.equal(reported[0], "the plot is full");
});
