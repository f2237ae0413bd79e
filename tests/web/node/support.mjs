/** What the tests of client.js share: where the sidecar is, an origin and an edge that do as they are told. */

import { once } from "node:events";
import { createServer, request } from "node:http";
import { test as nodeTest } from "node:test";

import { WebSocket } from "ws";

/** The sidecar, in front of the provider, and under /o/ of the origin that a test scripts. */
export const SIDECAR = process.env.SIDECAR;

/** A chat, and what the provider answers by default: 40 tokens, their end, `[DONE]`. */
export const CHAT = `${SIDECAR}/v1/chat/completions`;
export const ASK = { model: "demo", stream: true, messages: [{ role: "user", content: "hello" }] };
export const WHOLE = 43;

/** Options of a socket: Node 20 has no WebSocket of its own. */
export const SOCKET = { WebSocket };

/** Options with which nobody waits long. */
export const QUICK = { retry: { delay: 5, max: 40 } };

/** How long a test waits for what must happen, in ms. */
const PATIENCE = 8_000;

/** A test that is named when it hangs. */
export function test(name, body) {
  return nodeTest(name, { timeout: 2 * PATIENCE }, body);
}

/** The text of an answer of the provider's, from its events. */
export function textOf(events) {
  return events.map(({ json }) => json?.choices?.[0]?.delta?.content ?? json?.text ?? "").join("");
}

/** Every event of an answer. */
export async function all(answer) {
  const events = [];
  for await (const event of answer) events.push(event);
  return events;
}

/** The numbers 1 … n: what the seqs of a whole answer are. */
export function upTo(n) {
  return Array.from({ length: n }, (_, index) => index + 1);
}

export async function eventually(condition, what) {
  for (const end = Date.now() + PATIENCE; !(await condition()); ) {
    if (Date.now() > end) throw new Error(`${what} did not come true within ${PATIENCE} ms`);
    await new Promise((wake) => setTimeout(wake, 5));
  }
}

/** Fails where a promise takes too long. */
export function soon(promise, what = "the promise") {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${PATIENCE} ms`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** What the provider counts as open now. */
export async function openAtProvider() {
  return (await (await fetch(`${process.env.PROVIDER}/_provider/open`)).json()).open;
}

/** A server on a free port (or the given one) until the test is over. `requests` are those it had. */
export async function serve(t, handle, port = 0) {
  const requests = [];
  const server = createServer((req, res) => {
    requests.push(req);
    res.on("error", () => {});
    handle(req, res, requests.length);
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    return new Promise((closed) => server.close(closed));
  });
  return { url: `http://127.0.0.1:${server.address().port}`, requests, server };
}

/** The upstream behind /o/ of the sidecar; its answers are scripts. */
export async function origin(t, script) {
  const served = await serve(t, script, Number(process.env.ORIGIN_PORT));
  return { ...served, url: `${SIDECAR}/o` };
}

/** Begins an event stream. */
export function stream(res, headers = {}) {
  res.writeHead(200, { "Content-Type": "text/event-stream", ...headers });
  res.flushHeaders();
}

/**
 * An edge before the sidecar. `meddle({ req, res, pass, number })` may answer itself, or pass: `pass({ after, how })` lets
 * so many bytes of an event stream through, and then ends it in good order ("end"), or breaks it ("break").
 */
export async function edge(t, meddle) {
  return serve(t, (req, res, number) => {
    const pass = ({ after = Infinity, how = "break", drop = [] } = {}) => {
      const onward = request(`${SIDECAR}${req.url}`, { method: req.method, headers: req.headers });
      req.pipe(onward);
      res.on("close", () => onward.destroy());
      onward.on("error", () => res.destroy());
      onward.on("response", (answer) => {
        const headers = { ...answer.headers };
        for (const name of drop) delete headers[name];
        res.writeHead(answer.statusCode, headers);
        res.flushHeaders();
        let left = /event-stream/.test(answer.headers["content-type"]) ? after : Infinity;
        answer.on("error", () => res.destroy());
        answer.on("data", (data) => {
          if (left <= 0) return;
          const last = data.length >= left;
          res.write(data.subarray(0, left), () => last && setTimeout(leave, 5)); // what was written arrives
          left -= data.length;
        });
        const leave = () => (how === "end" ? res.end() : res.destroy());
        answer.on("end", () => left > 0 && res.end());
        answer.on("aborted", () => res.destroy());
      });
    };
    meddle({ req, res, pass, number });
  });
}
