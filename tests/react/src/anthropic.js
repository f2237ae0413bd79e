import { steps } from "./steps.js";

// What Anthropic's messages want to be asked.
export function body(messages) {
  return {
    model: "claude-sonnet-5",
    max_tokens: 4096,
    stream: true,
    tools: [weather],
    messages: messages.flatMap(asked),
  };
}

const weather = {
  name: "weather",
  description: "The weather in a city",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

function asked({ role, parts }) {
  return steps(parts).flatMap((step) => {
    const results = step.filter((part) => part.state === "output-available").map(answered);
    const message = { role, content: step.flatMap(said) };
    return results.length > 0 ? [message, { role: "user", content: results }] : [message];
  });
}

function said(part) {
  if (part.type === "text") return [{ type: "text", text: part.text }];
  if (part.state !== "output-available") return [];
  const name = part.type.slice("tool-".length);
  return [{ type: "tool_use", id: part.toolCallId, name, input: part.input }];
}

function answered({ toolCallId, output }) {
  return { type: "tool_result", tool_use_id: toolCallId, content: JSON.stringify(output) };
}
