// A small Node server that proxies streams through `resumable-stream`, the way its README shows: every answer
// becomes a resumable stream, whose state is in Redis. As long as nobody resumes, the library leaves it at one
// INCR, one SUBSCRIBE and one SET a stream, and keeps the chunks in this process's memory.
//
//     node server.mjs PORT UPSTREAM_URL REDIS_URL

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createClient } from "redis";
import { createResumableStreamContext } from "resumable-stream";

const [port, upstream, redis] = process.argv.slice(2);
const publisher = createClient({ url: redis });
const subscriber = createClient({ url: redis });
await Promise.all([publisher.connect(), subscriber.connect()]);

const context = createResumableStreamContext({
  waitUntil: null, // a server that stays needs nobody to keep it alive
  publisher,
  subscriber,
});

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function relay(request, response) {
  const hasBody = request.method !== "GET" && request.method !== "HEAD";
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  const answer = await fetch(upstream + request.url, {
    method: request.method,
    headers: { "content-type": request.headers["content-type"] ?? "application/json" },
    body: hasBody ? await body(request) : undefined,
    signal: gone.signal,
  });
  const id = randomUUID();
  const stream = await context.createNewResumableStream(id, () => answer.body.pipeThrough(new TextDecoderStream()));
  response.writeHead(answer.status, {
    "content-type": answer.headers.get("content-type"),
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
    "x-stream-id": id,
  });
  response.flushHeaders();
  for await (const chunk of stream) {
    if (!response.write(chunk)) await new Promise((resolve) => response.once("drain", resolve));
  }
  response.end();
}

const server = createServer((request, response) => {
  relay(request, response).catch(() => response.destroy());
});
server.keepAliveTimeout = 3_600_000; // the set-up load keeps its connections
server.requestTimeout = 0;
server.listen(Number(port), "127.0.0.1", 1024);
