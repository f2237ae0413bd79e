/** A program in strict TypeScript that uses client.js; it is compiled, never run. */

import { openSocket, openStream, perFrame, StreamError, type Answer, type StreamEvent } from "./client.js";

interface Chunk {
  choices: { delta: { content?: string } }[];
}

export async function read(show: (text: string) => void): Promise<string> {
  const answer: Answer<Chunk> = openStream<Chunk>("/v1/chat/completions", {
    body: { stream: true, messages: [] },
    headers: { "X-User": "ann" },
    credentials: "include",
    signal: AbortSignal.timeout(60_000),
    retry: { attempts: 5 },
  });
  const { stream, headers } = await answer.opened;
  show(stream ?? headers?.get("Link") ?? "");
  try {
    for await (const events of perFrame(answer)) {
      show(events.map((event: StreamEvent<Chunk>) => event.json?.choices[0]?.delta.content ?? "").join(""));
    }
  } catch (error) {
    if (error instanceof StreamError && error.recoverable) return `${error.code} ${error.seq ?? 0}`;
    throw error;
  }
  return (await answer.cancel()).reason;
}

export const feed = openStream(new URL("/api/events", location.href), { feed: true, silence: Infinity });
export const viewer = openStream(null, { stream: "x", after: "now", base: document.baseURI });
export const socket = openSocket("/api/chat", {
  body: { prompt: "hello" },
  token: "t",
  observe(told) {
    if (told.type === "read") console.log(told.bytes.toFixed());
    if (told.type === "state" && told.state === "waiting") console.log(told.at);
  },
});

// @ts-expect-error without an address there must be a stream to follow
openStream(null);
// @ts-expect-error an answer can be dropped, not paused
viewer.pause();
// @ts-expect-error the state is one of four
if (feed.state === "paused") throw new Error();
// @ts-expect-error what it tells is read-only
feed.seq = 7;
