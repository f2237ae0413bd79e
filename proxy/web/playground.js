/** The page: what is chosen becomes a request, the request a pane, and the buttons act on the first pane. */

import { openSocket, openStream } from "./client.js";
import { Pane, shortened } from "./pane.js";
import { CALM, PRESETS, ROUTES, curl, request, socketLines } from "./request.js";

/** So many viewers a page shows at once: each is a connection, and browsers allow an origin six. */
const MOST_PANES = 4;

/** How often the provider is asked how many streams it has open, in milliseconds. */
const OPEN_EVERY = 500;

const base = new URL("./", document.baseURI).href;
const form = document.getElementById("request");
const panesElement = document.getElementById("panes");
const narrow = matchMedia("(max-width: 59.99rem)");
const button = (id) => document.getElementById(id);

/** @type {Pane[]} the first one is that of the request; more are further viewers */
const panes = [];

// What is chosen

for (const { id, name } of ROUTES) form.elements.route.append(new Option(name, id));
for (const { id, name } of PRESETS) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "preset", value: id });
  const words = document.createElement("span");
  words.textContent = words.dataset.words = name;
  label.append(input, words);
  button("presets").append(label);
}

function choosePreset(preset) {
  for (const [name, value] of Object.entries({ ...CALM, ...preset.set })) {
    const field = form.elements[name];
    if (field.type === "checkbox") field.checked = value;
    else field.value = value;
  }
  form.elements.preset.value = preset.id;
}

/** The preset that the settings are, or none of them. */
function currentPreset() {
  const settings = currentSettings();
  return PRESETS.find(({ set }) =>
    Object.entries({ ...CALM, ...set }).every(([name, value]) => String(settings[name]) === String(value)),
  );
}

function currentSettings() {
  return Object.fromEntries(
    Object.keys(CALM).map((name) => {
      const field = form.elements[name];
      return [name, field.type === "checkbox" ? field.checked : field.value];
    }),
  );
}

function chosen() {
  const route = ROUTES.find(({ id }) => id === form.elements.route.value);
  const overSocket = form.elements.transport.value === "websocket" && !route.feed;
  return { route, overSocket, ...request(route, currentSettings(), form.elements.prompt.value, base) };
}

function showChoice() {
  const { route, overSocket, ...asked } = chosen();
  for (const input of form.elements.transport) {
    input.disabled = Boolean(route.feed) && input.value === "websocket";
    input.parentElement.title = input.disabled ? "The demo's feed goes over SSE only: its route has no bridge" : "";
  }
  if (route.feed) form.elements.transport.value = "sse";
  const preset = currentPreset();
  for (const input of form.elements.preset) input.checked = input.value === preset?.id;
  button("preset-told").textContent = preset?.told ?? "As set below.";
  button("line-title").textContent = overSocket ? "The same in a console" : "The same with curl";
  button("line").textContent = overSocket ? socketLines(asked) : curl(asked);
}

form.addEventListener("input", (event) => {
  if (event.target.name === "preset") choosePreset(PRESETS.find(({ id }) => id === event.target.value));
  showChoice();
});

button("copy").addEventListener("click", async () => {
  const line = button("line");
  try {
    await navigator.clipboard.writeText(line.textContent);
    announce("Copied.");
    button("copy").textContent = "Copied";
    setTimeout(() => (button("copy").textContent = "Copy"), 1500);
  } catch {
    getSelection().selectAllChildren(line); // no clipboard without TLS, but for this machine's own address
  }
});

// What is done

function start() {
  closeAll();
  const { route, overSocket, url, method, body } = chosen();
  const open = (more) =>
    overSocket ? openSocket(url, { body, base, ...more }) : openStream(url, { method, body, base, ...more });
  addPane(open, "First viewer", `${overSocket ? "WebSocket" : "SSE"} · ${route.name}`).socketUrl = url;
  if (narrow.matches) panesElement.scrollIntoView({ behavior: "auto", block: "start" }); // it is below all choices
}

/** Another viewer of the stream that the first pane shows, by whatever is chosen now. */
function addViewer() {
  const [first] = panes;
  const overSocket = form.elements.transport.value === "websocket" && !chosen().route.feed;
  const follow = { stream: first.stream, after: 0, base };
  const open = (more) =>
    overSocket ? openSocket(first.socketUrl, { ...follow, ...more }) : openStream(null, { ...follow, ...more });
  const ordinal = ["Second", "Third", "Fourth"][panes.length - 1];
  addPane(open, `${ordinal} viewer`, `${overSocket ? "WebSocket" : "SSE"} · stream ${shortened(first.stream)}`);
}

/** Follow the stream that the address names: how a second tab begins. */
function followAddress() {
  const stream = new URLSearchParams(location.hash.slice(1)).get("stream");
  if (!/^[\w-]{22,60}$/.test(stream ?? "")) return; // whoever writes a link chooses no path here
  closeAll();
  const open = (more) => openStream(null, { stream, after: 0, base, ...more });
  addPane(open, "Another viewer", `SSE · stream ${shortened(stream)}`).socketUrl = new URL("api/chat", base).href;
}

function addPane(open, title, via) {
  panesElement.querySelector(".empty")?.remove();
  const pane = new Pane({ open, title, via, base, announce, changed: showActions });
  pane.onClose(() => closePane(pane));
  panes.push(pane);
  panesElement.append(pane.element);
  showActions();
  wake();
  return pane;
}

/** Take a pane away. Its reader leaves; the stream itself goes on for as long as it lingers. */
function closePane(pane) {
  const index = panes.indexOf(pane);
  if (index === -1) return;
  pane.leave();
  if (pane.element.contains(document.activeElement)) button("start").focus(); // whoever goes by keyboard stands somewhere
  pane.element.remove();
  panes.splice(index, 1);
  showActions();
}

function closeAll() {
  for (const pane of [...panes]) closePane(pane);
}

const ACTIONS = {
  drop: { possible: () => panes[0]?.state === "open", act: () => panes[0].drop() },
  stop: { possible: () => Boolean(panes[0]?.running), act: () => panes[0].stop() },
  second: { possible: () => Boolean(panes[0]?.stream) && panes.length < MOST_PANES, act: addViewer },
};

function showActions() {
  for (const [id, { possible }] of Object.entries(ACTIONS)) button(id).ariaDisabled = String(!possible());
}

function attempt(id) {
  if (ACTIONS[id].possible()) ACTIONS[id].act();
}

for (const id of Object.keys(ACTIONS)) button(id).addEventListener("click", () => attempt(id));

form.addEventListener("invalid", () => (button("tuning").open = true), true); // what is wrong must be seen

form.addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});

// Keys

const KEYS = { d: "drop", s: "stop", v: "second" };

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
    return;
  }
  const modified = event.ctrlKey || event.metaKey || event.altKey;
  const writing = event.target.closest("textarea, select, input:not([type=checkbox], [type=radio])");
  const id = KEYS[event.key.toLowerCase()];
  if (id && !modified && !writing && !event.repeat && button("keys").checked) attempt(id);
});

button("keys").addEventListener("change", () => document.body.classList.toggle("no-keys", !button("keys").checked));

// What is shown

function announce(sentence) {
  button("said").textContent = sentence;
}

let colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = { ink: "ink", quiet: "quiet", line: "line", accent: "accent", alarm: "alarm", alarmWash: "alarm-wash" };
  colours = Object.fromEntries(Object.entries(names).map(([key, name]) => [key, style.getPropertyValue(`--${name}`)]));
  refresh();
}

function refresh() {
  for (const pane of panes) pane.refresh();
  wake();
}

let awake = false;

/** Show what has changed in each frame, for as long as anything may change. */
function wake() {
  if (awake) return;
  awake = true;
  requestAnimationFrame(function frame() {
    const now = performance.now();
    for (const pane of panes) pane.render(now, colours);
    awake = panes.some((pane) => !pane.settled);
    if (awake) requestAnimationFrame(frame);
  });
}

/** Show what the provider says: a stop has reached it when its stream is gone. */
async function showOpen() {
  const busy = panes.some((pane) => pane.running);
  if (!document.hidden && (busy || button("open").dataset.open !== "0")) {
    try {
      const { open } = await (await fetch(new URL("_provider/open", base))).json();
      button("open").dataset.open = open;
      button("open").textContent = `Provider: ${open} open stream${open === 1 ? "" : "s"}`;
    } catch {
      button("open").textContent = "Provider: out of reach";
    }
  }
  setTimeout(showOpen, OPEN_EVERY);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColours);
addEventListener("resize", refresh);
addEventListener("hashchange", followAddress);

choosePreset(PRESETS[0]);
readColours();
showChoice();
showOpen();
followAddress();

/** For the console: `playground.panes[0].record` is all that the first viewer has seen, with times. */
globalThis.playground = { panes };
