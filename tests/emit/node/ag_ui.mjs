// Runs agents with AG-UI's client: {name: URL} as JSON on stdin, {name: what was heard} on stdout.

import { text } from "node:stream/consumers";
import { HttpAgent } from "@ag-ui/client";

/** One run: its messages, how it ended, and every word of complaint. */
async function run(url) {
  const heard = { messages: [], result: null, pending: null, usage: null, error: null, failed: null, custom: [], types: [], warnings };
  const agent = new HttpAgent({ url });
  agent.messages = [{ id: "asked", role: "user", content: "hello" }];
  const { result, newMessages } = await agent.runAgent({}, {
    onEvent: ({ event }) => { heard.types.push(event.type); },
    onCustomEvent: ({ event }) => { heard.custom.push({ name: event.name, value: event.value }); },
    onRunErrorEvent: ({ event }) => { heard.error = { message: event.message, code: event.code }; heard.usage = event.usage ?? null; },
    onRunFinishedEvent: ({ event, pendingToolCallIds }) => { heard.pending = pendingToolCallIds; heard.usage = event.usage ?? null; },
    onRunFailed: ({ error }) => { heard.failed = String(error); },
  }).catch((error) => { heard.failed = String(error); return { result: null, newMessages: agent.messages.slice(1) }; });
  return { ...heard, messages: newMessages, result: result ?? null };
}

let warnings = [];
console.warn = console.error = (...words) => warnings.push(words.map(String).join(" "));

const heard = {};
for (const [name, url] of Object.entries(JSON.parse(await text(process.stdin)))) {
  warnings = [];
  heard[name] = await run(url);
}
process.stdout.write(JSON.stringify(heard));
