// Asks as useChat does: {name: URL} as JSON on stdin, {name: what was heard} on stdout.

import { text } from "node:stream/consumers";
import { Chat } from "@ai-sdk/react";
import { DefaultChatTransport, readUIMessageStream } from "ai";
import { metadata } from "./src/metadata.js";

/** What a chat shows in the end, and every word that its app is told. */
async function chat(api) {
  const heard = { raw: [], called: [], finish: null, error: null };
  const chat = new Chat({
    transport: new DefaultChatTransport({ api }),
    messageMetadataSchema: metadata,
    onData: ({ type, data }) => heard.raw.push({ type, data }),
    onToolCall: ({ toolCall }) => { heard.called.push(toolCall.toolCallId); },
    onError: (error) => { heard.error = error.message; },
    onFinish: ({ finishReason, isError, isDisconnect }) => { heard.finish = { finishReason, isError, isDisconnect }; },
  });
  await chat.sendMessage({ text: "hello" });
  const messages = chat.messages.slice(1);
  return { ...heard, status: chat.status, messages };
}

/** The chunks themselves, each checked against the schema, and the message that is read out of them. */
async function stream(api) {
  const chunks = [];
  const transport = new DefaultChatTransport({ api });
  const sent = await transport.sendMessages({ chatId: "c1", messages: [], trigger: "submit-message" });
  const [one, other] = sent.tee();
  let message = null;
  let error = null;
  const read = readUIMessageStream({ stream: one, onError: (told) => { error = told.message; } });
  const listen = async () => { for await (const chunk of other) chunks.push(chunk); };
  await Promise.all([listen(), (async () => { for await (const newest of read) message = newest; })()]);
  return { chunks, parts: message?.parts ?? [], error };
}

const heard = {};
for (const [name, url] of Object.entries(JSON.parse(await text(process.stdin)))) {
  heard[name] = { chat: await chat(url), stream: await stream(url) };
}
process.stdout.write(JSON.stringify(heard));
