/** What the playground asks for: routes, the provider's misbehaviours as settings, and the same in a shell's words. */

/**
 * @typedef {object} Route
 * @property {string} id
 * @property {string} name       as people know the API
 * @property {string} path       relative to the sidecar's root, which need not be the server's
 * @property {object} [query]    what the API itself wants there
 * @property {(prompt: string) => object} [body]    without one the route is a GET
 * @property {boolean} [feed]    events without an end, counted by the app itself
 */

/** @type {Route[]} */
export const ROUTES = [
  {
    id: "chat",
    name: "OpenAI, chat completions",
    path: "v1/chat/completions",
    body: (prompt) => ({ model: "demo", stream: true, messages: [{ role: "user", content: prompt }] }),
  },
  {
    id: "responses",
    name: "OpenAI, responses",
    path: "v1/responses",
    body: (prompt) => ({ model: "demo", stream: true, input: prompt }),
  },
  {
    id: "anthropic",
    name: "Anthropic, messages",
    path: "v1/messages",
    body: (prompt) => ({
      model: "demo",
      stream: true,
      max_tokens: 10000,
      messages: [{ role: "user", content: prompt }],
    }),
  },
  {
    id: "gemini",
    name: "Gemini, streamGenerateContent",
    path: "v1beta/models/demo:streamGenerateContent",
    query: { alt: "sse" },
    body: (prompt) => ({ contents: [{ role: "user", parts: [{ text: prompt }] }] }),
  },
  {
    id: "unified",
    name: "Anthropic, as unified events",
    path: "unified/v1/messages",
    body: (prompt) => ({ model: "demo", stream: true, max_tokens: 10000, messages: [{ role: "user", content: prompt }] }),
  },
  { id: "app", name: "An app's own, /api/chat", path: "api/chat", body: (prompt) => ({ prompt }) },
  { id: "feed", name: "An app's feed, /api/events", path: "api/events", feed: true },
];

/** The settings that a well-behaved provider has. Times between writes in milliseconds, others in seconds. */
export const CALM = {
  tokens: 200,
  interval: 40,
  first_delay: 0,
  burst: 1,
  size: 0,
  split: 0,
  turn: "",
  at: 40,
  pause: 11,
  newline: "lf",
  status: "200",
  endless: false,
  comments: false,
};

/** Providers to choose from: what each differs in from a calm one, and what there is to see. */
export const PRESETS = [
  { id: "calm", name: "behaves", told: "A word every 40 ms. Drop the connection, and come back.", set: {} },
  {
    id: "thinks",
    name: "thinks for 12 s",
    told: "Silence first. A heartbeat every 5 s keeps every balancer on the way from cutting it.",
    set: { first_delay: 12, tokens: 60 },
  },
  {
    id: "lumps",
    name: "sends lumps",
    told: "Fifteen words in each write, every 0.6 s: this is what buffering looks like.",
    set: { burst: 15, interval: 600 },
  },
  {
    id: "pauses",
    name: "pauses half-way",
    told: "After 40 events nothing for 11 s, as while a tool runs.",
    set: { turn: "pause_at", tokens: 80 },
  },
  {
    id: "endless",
    name: "never ends",
    told: "Words until you press Stop. Watch the provider's count of open streams go back to 0.",
    set: { endless: true },
  },
  {
    id: "hangs-up",
    name: "hangs up",
    told: "In the middle of event 41. The client is told of it as of an error, and never of a whole answer.",
    set: { turn: "drop_at" },
  },
  {
    id: "early",
    name: "ends too early",
    told: "A clean end after 40 events, without the marker of a whole answer. An app's own streams have none: there it counts as whole.",
    set: { turn: "truncate_at" },
  },
  {
    id: "error",
    name: "tells an error",
    told: "The API's own error event, after 40 others. It passes as it came.",
    set: { turn: "error_at" },
  },
  {
    id: "silent",
    name: "falls silent",
    told: "After 40 events nothing more, and the connection stays open. Heartbeats go on.",
    set: { turn: "hang_at" },
  },
  {
    id: "awkward",
    name: "writes awkwardly",
    told: "Seven bytes at a time through the middle of characters, CR LF, a comment before each event.",
    set: { split: 7, newline: "crlf", comments: true, tokens: 60 },
  },
  {
    id: "refuses",
    name: "is busy",
    told: "429 instead of a stream. It passes as it is.",
    set: { status: "429" },
  },
];

/** The provider's query parameters for these settings; what is as it would be anyway is left out. */
export function parameters(settings, route) {
  const query = new URLSearchParams(route.query ?? {});
  const unusual = (name, value) => {
    if (String(settings[name]) !== String(CALM[name])) query.set(name, value);
  };
  if (settings.endless && !route.feed) query.set("endless", "1");
  if (!settings.endless) query.set(route.feed ? "count" : "tokens", settings.tokens);
  query.set("interval", inSeconds(settings.interval));
  for (const name of ["first_delay", "burst", "size", "split", "newline", "status"]) unusual(name, settings[name]);
  unusual("comments", "1");
  if (settings.turn) query.set(settings.turn, settings.at);
  if (settings.turn === "pause_at") query.set("pause", settings.pause);
  return query;
}

function inSeconds(milliseconds) {
  return String(Number((milliseconds / 1000).toFixed(6)));
}

/**
 * One request: its URL, and what `fetch` (or a bridge's start) wants of it. `base` is the sidecar's root.
 *
 * @returns {{ url: string, method: string, body: object | undefined }}
 */
export function request(route, settings, prompt, base) {
  const url = new URL(route.path, base);
  url.search = parameters(settings, route).toString();
  return { url: url.href, method: route.body ? "POST" : "GET", body: route.body?.(prompt) };
}

/** The request as a line for a shell. */
export function curl({ url, method, body }) {
  const words = ["curl -N", quoted(url)];
  if (method !== "GET") words.push("\\\n  -H 'content-type: application/json'", `\\\n  -d ${quoted(JSON.stringify(body))}`);
  return words.join(" ");
}

/** The request over a bridge, as lines for a browser's console or Node 22. */
export function socketLines({ url, body }) {
  return [
    `const socket = new WebSocket(${JSON.stringify(url.replace(/^http/, "ws"))});`,
    "socket.onmessage = ({ data }) => console.log(data);",
    `socket.onopen = () => socket.send(${JSON.stringify(JSON.stringify(body))});`,
  ].join("\n");
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** The text that an event adds to the answer, in any of the APIs' forms; "" where it adds none. */
export function spoken({ json, event }) {
  if (json === null || typeof json !== "object") return "";
  if (json.type === "response.output_text.delta") return String(json.delta);
  if (json.type === "text_delta") return String(json.content);
  if (json.type === "content_block_delta") return json.delta?.text ?? "";
  if (Array.isArray(json.choices)) return json.choices[0]?.delta?.content ?? "";
  if (Array.isArray(json.candidates)) return (json.candidates[0]?.content?.parts ?? []).map(({ text }) => text ?? "").join("");
  if (typeof json.number === "number") return `${json.number === 1 ? "" : " "}${json.text}`;
  return event !== "error" && json.type === undefined && typeof json.text === "string" ? json.text : "";
}

/** What an event says went wrong, in any of the APIs' forms; null where it says nothing of that kind. */
export function complaint({ json, event }) {
  if (json === null || typeof json !== "object") return null;
  const told = json.error ?? json.response?.error ?? (event === "error" ? json : null);
  if (!told) return null;
  return typeof told === "string" ? told : String(told.message ?? JSON.stringify(told));
}
