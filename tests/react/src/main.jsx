import { createRoot } from "react-dom/client";
import * as anthropic from "./anthropic.js";
import { Chat } from "./chat.jsx";
import * as openai from "./openai.js";
import { sidecar } from "./sidecar.js";

// The address says what to ask, and how that is to behave: ?api=/v1/messages&how=endless%3D1&chat=c1
const asked = new URLSearchParams(location.search);
const bodies = { "/v1/chat/completions": openai.body, "/v1/messages": anthropic.body };
const api = asked.get("api");
const { transport, cancel } = sidecar({ api: `${api}?${asked.get("how")}`, body: bodies[api] });

createRoot(document.getElementById("root")).render(
  <Chat id={asked.get("chat")} transport={transport} cancel={cancel} />,
);
