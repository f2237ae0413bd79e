import { useChat } from "@ai-sdk/react";
import { lastAssistantMessageIsCompleteWithToolCalls } from "ai";
import { useEffect, useState } from "react";

export function Chat({ id, transport, cancel }) {
  const [draft, setDraft] = useState("");
  const { messages, status, error, sendMessage, addToolOutput, stop } = useChat({
    id,
    transport,
    resume: true,
    messages: saved(id),
    onToolCall: ({ toolCall: { toolName, toolCallId, input } }) => {
      addToolOutput({ tool: toolName, toolCallId, output: `18 degrees in ${input.city}` });
    },
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
  });

  useEffect(() => {
    if (status === "submitted" || status === "ready") save(id, messages);
  }, [id, status]);

  function send(event) {
    event.preventDefault();
    sendMessage({ text: draft });
    setDraft("");
  }

  return (
    <main data-status={status}>
      {messages.map((message) => (
        <article key={message.id} className={message.role}>
          {message.parts.map((part, index) => <Part key={index} part={part} />)}
        </article>
      ))}
      {error && <p role="alert">{error.message}</p>}
      <form onSubmit={send}>
        <input value={draft} onChange={(event) => setDraft(event.target.value)} />
        <button>Send</button>
        <button type="button" onClick={() => Promise.all([cancel(), stop()])}>Stop</button>
      </form>
    </main>
  );
}

function Part({ part }) {
  if (part.type === "text") return <p>{part.text}</p>;
  if (part.type === "reasoning") return <details>{part.text}</details>;
  if (part.type.startsWith("tool-")) {
    return <code>{part.type.slice(5)}({JSON.stringify(part.input)}): {part.output}</code>;
  }
  return null;
}

// What is whole is saved; an answer that runs is the sidecar's to keep.
const saved = (id) => JSON.parse(localStorage.getItem(id) ?? "[]");
const save = (id, messages) => localStorage.setItem(id, JSON.stringify(messages));
