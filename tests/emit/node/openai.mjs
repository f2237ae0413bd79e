// Reads chat completions with openai's client: {name: base URL} as JSON on stdin, {name: what was heard} on stdout.

import { text } from "node:stream/consumers";
import OpenAI from "openai";

const REQUEST = { model: "m", messages: [{ role: "user", content: "hello" }] };

/** What a loop over the chunks hears, and the exception that it ends with. */
async function chunks(client) {
  const heard = { text: {}, thinking: "", refusal: "", calls: {}, finish: {}, native: {}, citations: [], usage: null, error: null };
  try {
    for await (const chunk of await client.chat.completions.create({ ...REQUEST, stream: true })) {
      heard.usage = chunk.usage ?? heard.usage;
      for (const choice of chunk.choices) hear(heard, choice);
    }
  } catch (error) {
    heard.error = told(error);
  }
  return heard;
}

function hear(heard, { index, delta, finish_reason, native_finish_reason }) {
  heard.text[index] = (heard.text[index] ?? "") + (delta.content ?? "");
  heard.thinking += delta.reasoning_content ?? "";
  heard.refusal += delta.refusal ?? "";
  for (const fragment of delta.tool_calls ?? []) {
    const call = (heard.calls[`${index}.${fragment.index}`] ??= { id: fragment.id, name: fragment.function.name, arguments: "" });
    call.arguments += fragment.function.arguments ?? "";
  }
  for (const annotation of delta.annotations ?? []) heard.citations.push(annotation.url_citation.url);
  if (finish_reason) heard.finish[index] = finish_reason;
  if (native_finish_reason) heard.native[index] = native_finish_reason;
}

/** The completion that the client itself puts together. */
async function completion(client) {
  try {
    const { choices } = await client.chat.completions.stream(REQUEST).finalChatCompletion();
    return choices.map(({ message, finish_reason }) => ({ ...message, finish_reason }));
  } catch (error) {
    return told(error);
  }
}

const told = (error) => ({ name: error.constructor.name, code: error.code ?? null, message: error.message });

const answers = Object.entries(JSON.parse(await text(process.stdin))).map(async ([name, baseURL]) => {
  const client = new OpenAI({ baseURL, apiKey: "not-a-key", maxRetries: 0 });
  return [name, { ...(await chunks(client)), completion: await completion(client) }];
});
process.stdout.write(JSON.stringify(Object.fromEntries(await Promise.all(answers))));
