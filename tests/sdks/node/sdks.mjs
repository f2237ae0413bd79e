// Every SDK for Node, each in the ways that apps use, driven over stdin and told of over stdout: one JSON document a
// line each way, any number of calls at once.
//
// stdin:   {"number": 1, "way": "openai chat", "base": "http://…", "wrong": "drop_at=7", "tool": false}
// stdout:  ready
//          {"number": 1, "text": "…", "tool": ["name", {…}] or null, "usage": [in, out] or null,
//           "error": {"names": ["APIError", "OpenAIError", "Error"], "message": "…"} or null}
//
// `names` are the error's class and those above it. Nobody retries.
import readline from "node:readline";
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogle } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { GoogleGenAI } from "@google/genai";
import { jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";

const KEY = "not-a-key";
const MODEL = "demo-1";
const SCHEMA = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer" }, metric: { type: "boolean" } },
  required: ["city", "days", "metric"],
};

/** What a call has led to so far; it is told whole or as far as it came. */
class Answer {
  text = "";
  tool = null;
  usage = null;
}

const prompt = (call) => (call.tool ? "Use your tool." : "hello");
const saying = (call) => [{ role: "user", content: prompt(call) }];
const headers = (call) => ({ "X-Misbehave": call.wrong });

// openai

const openai = (call) =>
  new OpenAI({
    baseURL: `${call.base}/v1`,
    apiKey: KEY,
    maxRetries: 0,
    defaultHeaders: headers(call),
  });

function chatRequest(call) {
  const tools = [{ type: "function", function: { name: "weather", parameters: SCHEMA } }];
  return {
    model: MODEL,
    messages: saying(call),
    stream: true,
    ...(call.tool && { tools, stream_options: { include_usage: true } }),
  };
}

async function openaiChat(call, answer) {
  let name = "";
  let json = "";
  for await (const chunk of await openai(call).chat.completions.create(chatRequest(call))) {
    const delta = chunk.choices[0]?.delta;
    answer.text += delta?.content ?? "";
    for (const { function: fragment } of delta?.tool_calls ?? []) {
      name += fragment.name ?? "";
      json += fragment.arguments ?? "";
    }
    if (chunk.usage) answer.usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens];
  }
  if (name) answer.tool = [name, JSON.parse(json)];
}

async function openaiChatHelper(call, answer) {
  const stream = openai(call).chat.completions.stream(chatRequest(call));
  stream.on("content", (delta) => (answer.text += delta));
  const { choices, usage } = await stream.finalChatCompletion();
  const [called] = choices[0].message.tool_calls ?? [];
  if (called) answer.tool = [called.function.name, JSON.parse(called.function.arguments)];
  if (usage) answer.usage = [usage.prompt_tokens, usage.completion_tokens];
}

function responsesRequest(call) {
  const tools = [{ type: "function", name: "weather", parameters: SCHEMA, strict: false }];
  return { model: MODEL, input: prompt(call), ...(call.tool && { tools }) };
}

function takeResponse({ output, usage }, answer) {
  const called = output.find(({ type }) => type === "function_call");
  if (called) answer.tool = [called.name, JSON.parse(called.arguments)];
  answer.usage = [usage.input_tokens, usage.output_tokens];
}

async function openaiResponses(call, answer) {
  const request = { ...responsesRequest(call), stream: true };
  for await (const event of await openai(call).responses.create(request)) {
    if (event.type === "response.output_text.delta") answer.text += event.delta;
    if (event.type === "response.completed") takeResponse(event.response, answer);
  }
}

async function openaiResponsesHelper(call, answer) {
  const stream = openai(call).responses.stream(responsesRequest(call));
  stream.on("response.output_text.delta", ({ delta }) => (answer.text += delta));
  takeResponse(await stream.finalResponse(), answer);
}

// @anthropic-ai/sdk

const anthropic = (call) =>
  new Anthropic({ baseURL: call.base, apiKey: KEY, maxRetries: 0, defaultHeaders: headers(call) });

function messagesRequest(call) {
  const tools = [{ name: "weather", input_schema: SCHEMA }];
  return { model: MODEL, max_tokens: 99, messages: saying(call), ...(call.tool && { tools }) };
}

async function anthropicMessages(call, answer) {
  let name = "";
  let json = "";
  const request = { ...messagesRequest(call), stream: true };
  for await (const event of await anthropic(call).messages.create(request)) {
    if (event.type === "message_start") answer.usage = [event.message.usage.input_tokens, 0];
    if (event.type === "message_delta") answer.usage[1] = event.usage.output_tokens;
    if (event.type === "content_block_start") name = event.content_block.name ?? "";
    if (event.delta?.type === "text_delta") answer.text += event.delta.text;
    if (event.delta?.type === "input_json_delta") json += event.delta.partial_json;
  }
  if (name) answer.tool = [name, JSON.parse(json)];
}

async function anthropicHelper(call, answer) {
  const stream = anthropic(call).messages.stream(messagesRequest(call));
  stream.on("text", (delta) => (answer.text += delta));
  const { content, usage } = await stream.finalMessage();
  if (content[0].type === "tool_use") answer.tool = [content[0].name, content[0].input];
  answer.usage = [usage.input_tokens, usage.output_tokens];
}

// @google/genai

async function googleGenai(call, answer) {
  const client = new GoogleGenAI({
    apiKey: KEY,
    httpOptions: { baseUrl: call.base, headers: headers(call) },
  });
  const tools = [{ functionDeclarations: [{ name: "weather", parameters: SCHEMA }] }];
  const chunks = await client.models.generateContentStream({
    model: MODEL,
    contents: prompt(call),
    ...(call.tool && { config: { tools } }),
  });
  for await (const chunk of chunks) {
    const parts = chunk.candidates?.[0]?.content?.parts ?? [];
    answer.text += parts.map(({ text }) => text ?? "").join("");
    for (const { functionCall } of parts) {
      if (functionCall) answer.tool = [functionCall.name, functionCall.args];
    }
    const usage = chunk.usageMetadata;
    if (usage) answer.usage = [usage.promptTokenCount, usage.candidatesTokenCount];
  }
}

// ai, with its providers

const provider = (call, path) => ({
  baseURL: `${call.base}${path}`,
  apiKey: KEY,
  headers: headers(call),
});

/** `model`: from a call to one of the SDK's models. */
const ai = (model) => async (call, answer) => {
  const weather = tool({ inputSchema: jsonSchema(SCHEMA) });
  const { stream } = streamText({
    model: model(call),
    prompt: prompt(call),
    maxRetries: 0,
    onError: () => {}, // or it writes the error to stderr; the stream has it too
    ...(call.tool && { tools: { weather } }),
  });
  for await (const part of stream) {
    if (part.type === "text-delta") answer.text += part.text;
    if (part.type === "tool-call") answer.tool = [part.toolName, part.input];
    if (part.type === "finish") answer.usage = [part.totalUsage.inputTokens, part.totalUsage.outputTokens];
    if (part.type === "error") throw part.error;
  }
};

const compatible = (call) =>
  createOpenAICompatible({ name: "demo", includeUsage: true, ...provider(call, "/v1") })(MODEL);

const WAYS = {
  "openai chat": openaiChat,
  "openai chat, helper": openaiChatHelper,
  "openai responses": openaiResponses,
  "openai responses, helper": openaiResponsesHelper,
  "@anthropic-ai/sdk": anthropicMessages,
  "@anthropic-ai/sdk, helper": anthropicHelper,
  "@google/genai": googleGenai,
  "ai, @ai-sdk/openai-compatible": ai(compatible),
  "ai, @ai-sdk/openai chat": ai((call) => createOpenAI(provider(call, "/v1")).chat(MODEL)),
  "ai, @ai-sdk/openai responses": ai((call) => createOpenAI(provider(call, "/v1")).responses(MODEL)),
  "ai, @ai-sdk/anthropic": ai((call) => createAnthropic(provider(call, "/v1"))(MODEL)),
  "ai, @ai-sdk/google": ai((call) => createGoogle(provider(call, "/v1beta"))(MODEL)),
};

function classes(error) {
  const names = [];
  for (let at = Object.getPrototypeOf(error); at?.constructor !== Object && at; at = Object.getPrototypeOf(at)) {
    names.push(at.constructor.name);
  }
  return names;
}

/** Errors of every make: an object that is no Error is told by its JSON. */
const describe = (error) =>
  error instanceof Error
    ? { names: classes(error), message: error.message }
    : { names: [typeof error], message: JSON.stringify(error) };

async function play(call) {
  const answer = new Answer();
  let error = null;
  try {
    await WAYS[call.way](call, answer);
  } catch (raised) {
    error = describe(raised);
  }
  process.stdout.write(`${JSON.stringify({ number: call.number, ...answer, error })}\n`);
}

globalThis.AI_SDK_LOG_WARNINGS = false; // stdout is for answers
process.stdout.write("ready\n");
readline.createInterface({ input: process.stdin }).on("line", (line) => play(JSON.parse(line)));
