// Chats through the sidecar whose URL is the argument; what they show in the end as JSON on stdout.

import { Chat } from "@ai-sdk/react";
import { body } from "./src/openai.js";
import { sidecar } from "./src/sidecar.js";

const [url] = process.argv.slice(2);
const ordinary = globalThis.fetch;
let drops = 0;

// What a browser adds: the page's origin, and its cookie. Of the next answers, so many break off.
globalThis.fetch = async (path, init) => {
  const headers = { ...init.headers, Cookie: "session=anna" };
  const response = await ordinary(new URL(path, url), { ...init, headers });
  return drops > 0 && drops-- ? new Response(broken(response.body), response) : response;
};

/** The beginning of a body, and then what Chromium says when the network is gone. */
function broken(body) {
  const reader = body.getReader();
  let left = 5;
  return new ReadableStream({
    async pull(controller) {
      const { value } = await reader.read();
      if (left--) return controller.enqueue(value);
      await reader.cancel();
      controller.error(new TypeError("network error"));
    },
  });
}

function open(how) {
  const { transport, cancel } = sidecar({ api: `/v1/chat/completions?${how}`, body });
  const heard = { finish: null };
  const onFinish = ({ isAbort, isDisconnect, isError }) => { heard.finish = { isAbort, isDisconnect, isError }; };
  return { chat: new Chat({ id: how, transport, onFinish }), cancel, heard };
}

function shown({ chat, heard }) {
  const texts = chat.messages.map(({ role, parts }) => [role, parts.map((part) => part.text ?? "").join("")]);
  return { ...heard, status: chat.status, texts };
}

/** Waits until a chat shows some words of an answer. */
async function someWords({ chat }) {
  const words = () => (chat.lastMessage?.role === "assistant" ? shown({ chat }).texts.at(-1)[1].split(" ") : []);
  while (words().length < 4) await new Promise((done) => setTimeout(done, 5));
}

const told = {};

const sent = open("interval=0&tokens=20");
await sent.chat.sendMessage({ text: "hello" });
told.sent = shown(sent);

const dropped = open("interval=0.02&tokens=30");
drops = 1;
await dropped.chat.sendMessage({ text: "hello" });
told.dropped = shown(dropped);
await dropped.chat.resumeStream();
told.resumed = shown(dropped);
await dropped.chat.resumeStream();
told.resumedAgain = shown(dropped);

const stopped = open("endless=1");
const sending = stopped.chat.sendMessage({ text: "hello" });
await someWords(stopped);
await Promise.all([stopped.cancel(), stopped.chat.stop()]);
await sending;
told.stopped = shown(stopped);
await stopped.chat.resumeStream();
told.resumedStopped = shown(stopped);

process.stdout.write(JSON.stringify(told));
