// Reads recorded streams with the SDKs for Node: {name: {way: base URL}} as JSON on stdin, {name: {way: what was heard}}
// on stdout. What was heard is the text, the names of the tools that were called, and what was raised.
import { text } from "node:stream/consumers";
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogle } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { GoogleGenAI } from "@google/genai";
import { streamText } from "ai";
import OpenAI from "openai";

globalThis.AI_SDK_LOG_WARNINGS = false;

const apiKey = "not-a-key";
const messages = [{ role: "user", content: "hello" }];

async function openai(baseURL, heard) {
  const chunks = await new OpenAI({ baseURL, apiKey, maxRetries: 0 }).chat.completions.create({ model: "m", messages, stream: true });
  for await (const { choices } of chunks) {
    for (const { index, delta } of choices) {
      if (index === 0) heard.text += delta?.content ?? "";
      for (const call of delta?.tool_calls ?? []) if (call.function?.name) heard.tools.push(call.function.name);
    }
  }
}

const CALLS = new Set(["function_call", "custom_tool_call"]);

async function responses(baseURL, heard) {
  for await (const event of await new OpenAI({ baseURL, apiKey, maxRetries: 0 }).responses.create({ model: "m", input: "hello", stream: true })) {
    if (event.type === "response.output_text.delta") heard.text += event.delta;
    if (event.type === "response.output_item.done" && CALLS.has(event.item.type)) heard.tools.push(event.item.name);
  }
}

async function anthropic(baseURL, heard) {
  const stream = new Anthropic({ baseURL, apiKey, maxRetries: 0 }).messages.stream({ model: "m", max_tokens: 9, messages });
  stream.on("text", (delta) => (heard.text += delta));
  for (const block of (await stream.finalMessage()).content) if (block.type === "tool_use") heard.tools.push(block.name);
}

async function google(baseUrl, heard) {
  const models = new GoogleGenAI({ apiKey, httpOptions: { baseUrl } }).models;
  for await (const { candidates, functionCalls } of await models.generateContentStream({ model: "m", contents: "hello" })) {
    const first = candidates?.find(({ index }) => !index);
    for (const part of first?.content?.parts ?? []) if (!part.thought) heard.text += part.text ?? "";
    for (const call of functionCalls ?? []) if (call.name) heard.tools.push(call.name);
  }
}

const withAi = (model) => async (baseURL, heard) => {
  const { fullStream } = streamText({ model: model(baseURL), prompt: "hello", maxRetries: 0, onError: () => {} });
  for await (const part of fullStream) {
    if (part.type === "text-delta") heard.text += part.text;
    if (part.type === "tool-call" && !part.providerExecuted) heard.tools.push(part.toolName);
    if (part.type === "error") throw part.error;
  }
};

const WAYS = {
  openai,
  responses,
  anthropic,
  google,
  "ai, openai-compatible": withAi((baseURL) => createOpenAICompatible({ name: "p", baseURL, apiKey })("m")),
  "ai, openai responses": withAi((baseURL) => createOpenAI({ baseURL, apiKey }).responses("m")),
  "ai, anthropic": withAi((baseURL) => createAnthropic({ baseURL, apiKey })("m")),
  "ai, google": withAi((baseURL) => createGoogle({ baseURL, apiKey })("m")),
};

const heard = {};
for (const [name, ways] of Object.entries(JSON.parse(await text(process.stdin)))) {
  heard[name] = {};
  for (const [way, url] of Object.entries(ways)) {
    const told = (heard[name][way] = { text: "", tools: [], error: null });
    try {
      await WAYS[way](url, told);
    } catch (error) {
      told.error = error?.message ?? JSON.stringify(error);
    }
  }
}
process.stdout.write(JSON.stringify(heard));
