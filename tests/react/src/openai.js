import { steps } from "./steps.js";

// What OpenAI's chat completions want to be asked.
export function body(messages) {
  return { model: "gpt-5-mini", stream: true, tools: [weather], messages: messages.flatMap(asked) };
}

const weather = {
  type: "function",
  function: {
    name: "weather",
    description: "The weather in a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

function asked({ role, parts }) {
  return steps(parts).flatMap((step) => {
    const text = step.filter((part) => part.type === "text").map((part) => part.text);
    const calls = step.filter((part) => part.state === "output-available");
    const message = { role, content: text.join("") };
    if (calls.length > 0) message.tool_calls = calls.map(called);
    return [message, ...calls.map(answered)];
  });
}

function called({ type, toolCallId, input }) {
  const name = type.slice("tool-".length);
  return { id: toolCallId, type: "function", function: { name, arguments: JSON.stringify(input) } };
}

function answered({ toolCallId, output }) {
  return { role: "tool", tool_call_id: toolCallId, content: JSON.stringify(output) };
}
