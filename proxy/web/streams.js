/**
 * The operators' page: asks `/streams` once a second, while somebody looks, and shows what it says.
 *
 * The sidecar chooses, sorts and bounds; the page adds what takes two looks: events a second. Whatever comes from
 * clients or upstreams gets into the page as text only.
 */

/** So many streams are shown. The sidecar knows the order, so these are the ones that matter. */
const ROWS = 200;

const EVERY = 1000; // milliseconds between two looks
const PATIENCE = 5000; // milliseconds that one may take

const element = (id) => document.getElementById(id);
const form = element("view");
const rows = element("rows");

/** @type {Map<string, { last: number, at: number, rate: number | null }>} what was last seen of a stream */
let seen = new Map();

/** @type {Map<string, { line: HTMLTableRowElement, more: HTMLTableRowElement }>} */
let lines = new Map();
const opened = new Set();

let held = false;
let began = null; // when the sidecar started, as it said first
let named = 0; // characters of an id that name the node, before the 22 of its stream
let heard = null; // when it last answered, as Date
let asking = null;

// Asking

/** Ask, and ask again in a while; what is held still is only asked for anew where something else is `wished`. */
async function look(wished = false) {
  clearTimeout(asking);
  if (!document.hidden && (wished || !held)) await ask();
  clearTimeout(asking);
  asking = setTimeout(look, EVERY);
}

async function ask() {
  const query = new URLSearchParams([["limit", ROWS], ...choice()]);
  try {
    const answer = await fetch(`streams?${query}`, { signal: AbortSignal.timeout(PATIENCE), cache: "no-store" });
    if (!answer.ok) throw new Error(`it answers ${answer.status}: ${(await answer.text()).slice(0, 200)}`);
    const told = await answer.json();
    if (String(query) !== String(new URLSearchParams([["limit", ROWS], ...choice()]))) return; // asked for something else since
    heard = new Date();
    showNotice(told.sidecar);
    show(told);
    document.body.classList.remove("stale");
  } catch (error) {
    document.body.classList.add("stale");
    notice(`The sidecar is out of reach (${error.message}). ${heard ? `What is below is from ${clock(heard)}.` : ""}`, "alarm");
  }
}

/** What the form chooses, without what it leaves open. */
function choice() {
  return [...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value);
}

// What holds for all

function showNotice({ started, draining, version, node }) {
  began ??= started;
  named = node ? node.length + 1 : 0;
  const since = new Date(started);
  text(element("sidecar"), [node && `node ${node}`, version, `up ${span(Math.max(0, Date.now() - since) / 1000)}`].filter(Boolean).join(" · "));
  if (draining) notice("It drains: no new streams come in, and it ends when those that run have ended, or their time is over.", "alarm");
  else if (started !== began) notice(`It was started anew at ${clock(since)}. What streamed before is gone.`, "accent");
  else element("notice").hidden = true;
}

function notice(sentence, tone) {
  const box = element("notice");
  box.hidden = false;
  box.dataset.tone = tone;
  text(box, sentence);
}

function showTotals(totals) {
  const told = { ...totals, store: `${size(totals.bytes)} of ${size(totals.max_bytes)}` };
  if (totals.evicted) told.store += `, ${totals.evicted} dropped early`;
  for (const cell of document.querySelectorAll("[data-total]")) {
    const value = told[cell.dataset.total];
    text(cell, typeof value === "number" ? value.toLocaleString("en") : value);
    cell.parentElement.classList.toggle("none", value === 0);
  }
  element("store").value = totals.bytes / totals.max_bytes;
}

/** Offer the routes there are; what is chosen stays chosen, even if it is no longer among them. */
function showRoutes(routes) {
  const { route } = form.elements;
  const names = new Set(Object.keys(routes));
  if (route.value) names.add(route.value);
  const options = [...route.options].slice(1);
  if (options.map(({ value }) => value).join("\n") !== [...names].join("\n")) {
    const chosen = route.value || wanted.get("route") || "";
    route.replaceChildren(route.options[0], ...[...names].map((name) => new Option(name, name)));
    route.value = names.has(chosen) ? chosen : "";
  }
  for (const option of [...route.options].slice(1)) {
    text(option, routes[option.value] ? `${option.value} (${routes[option.value]})` : option.value);
  }
}

// Streams

function show({ streams, totals }) {
  showTotals(totals);
  showRoutes(totals.routes);
  const now = performance.now();
  const before = { seen, lines };
  seen = new Map();
  lines = new Map();
  for (const stream of streams) {
    const key = `${stream.stream} ${stream.started}`;
    seen.set(key, pace(before.seen.get(key), stream, now));
    const pair = before.lines.get(key) ?? newLines(key);
    lines.set(key, pair);
    fill(pair, stream, seen.get(key).rate);
  }
  for (const [key, { line, more }] of before.lines) {
    if (lines.has(key)) continue;
    line.remove();
    more.remove();
    opened.delete(key);
  }
  arrange([...lines.values()].flatMap(({ line, more }) => [line, more]));
  const { matched } = totals;
  text(element("count"), matched > streams.length ? `The first ${streams.length} of ${matched.toLocaleString("en")} streams` : "");
  element("none").hidden = streams.length > 0;
}

/** Events a second since the last look, smoothed a little; null before there were two. */
function pace(before, { last, reason }, now) {
  if (reason !== null || !before) return { last, at: now, rate: null };
  const fresh = (last - before.last) / ((now - before.at) / 1000);
  return { last, at: now, rate: before.rate === null ? fresh : (before.rate + fresh) / 2 };
}

const COLUMNS = ["stream", "state", "route", "client", "age", "silent", "events", "rate", "readers", "buffer"];
const NUMBERS = new Set(["age", "silent", "events", "rate", "readers"]);
const TITLES = [...document.querySelectorAll("thead th")].map((cell) => cell.textContent);

function newLines(key) {
  const line = document.createElement("tr");
  for (const [index, name] of COLUMNS.entries()) {
    const cell = line.insertCell();
    cell.dataset.column = name;
    cell.dataset.title = TITLES[index];
    if (NUMBERS.has(name)) cell.className = "number";
  }
  const more = document.createElement("tr");
  more.className = "more";
  more.hidden = true;
  more.insertCell().colSpan = COLUMNS.length;
  more.cells[0].append(document.createElement("dl"));
  const toggle = document.createElement("button");
  toggle.type = "button";
  toggle.className = "mono";
  toggle.ariaExpanded = "false";
  toggle.addEventListener("click", () => {
    more.hidden = !more.hidden;
    toggle.ariaExpanded = String(!more.hidden);
    if (more.hidden) opened.delete(key);
    else opened.add(key);
    if (!more.hidden) fillMore(more, line.stream);
  });
  line.cells[0].append(toggle);
  line.cells[1].append(document.createElement("span"), document.createElement("small"));
  const buffer = line.cells[COLUMNS.indexOf("buffer")];
  buffer.append(document.createElement("span"), " ", Object.assign(document.createElement("meter"), { min: 0, max: 1 }));
  return { line, more };
}

function fill({ line, more }, stream, rate) {
  line.stream = stream;
  const cells = Object.fromEntries(COLUMNS.map((name, index) => [name, line.cells[index]]));
  text(cells.stream.firstChild, stream.stream);
  line.dataset.state = tone(stream);
  text(cells.state.firstChild, stateOf(stream));
  text(cells.state.lastChild, line.dataset.state === "broken" ? stream.message : "");
  const form = stream.emit === "passthrough" ? "" : ` → ${stream.emit}`;
  text(cells.route, stream.dialect === "generic" ? stream.route : `${stream.route} · ${stream.dialect}${form}`);
  text(cells.client, stream.client);
  cells.client.title = stream.client;
  text(cells.age, stream.ended === null ? span(stream.age) : `${span(stream.ended)} ago`);
  text(cells.silent, stream.silent === null ? "" : span(stream.silent));
  text(cells.events, stream.last.toLocaleString("en"));
  text(cells.rate, rate === null ? "" : rate.toFixed(rate < 10 ? 1 : 0));
  text(cells.readers, stream.readers);
  text(cells.buffer.firstChild, size(stream.bytes));
  cells.buffer.lastChild.value = stream.bytes / stream.max_bytes;
  cells.buffer.lastChild.ariaLabel = `${size(stream.bytes)} of ${size(stream.max_bytes)}`;
  cells.buffer.title = cells.buffer.lastChild.ariaLabel;
  if (!more.hidden) fillMore(more, stream);
}

/** All that is known of one stream: what its line in the log will say, or has said. */
function fillMore(more, stream) {
  const list = more.cells[0].firstChild;
  const facts = {
    Request: `${stream.method} ${stream.path}`,
    Upstream: stream.upstream,
    Began: new Date(stream.started).toLocaleString(),
    "Ran for": span(stream.age - (stream.ended ?? 0)),
    ...(stream.reason && { End: [stream.reason, stream.message].filter(Boolean).join(": ") }),
    "First event after": stream.time_to_first_event === null ? "none came" : span(stream.time_to_first_event),
    "Longest gap": span(stream.longest_gap),
    ...(stream.model && { Model: stream.model }),
    ...(stream.first_token !== null && { "First token after": span(stream.first_token) }),
    ...(stream.output_tokens !== null && { Tokens: `${stream.input_tokens ?? "?"} in, ${stream.output_tokens} out` }),
    ...(stream.finish_reason && { "Finish reason": stream.finish_reason.replaceAll("_", " ") }),
    "From upstream": size(stream.bytes_in),
    "To readers": size(stream.bytes_out),
    "Readers ever": `${stream.readers_ever}; ${stream.resumes} came back`,
    "Readers cut off": stream.drops,
    Heartbeats: stream.heartbeats,
    "Upstream held back": `${stream.pauses} ×`,
    Buffer: `${size(stream.bytes)} of ${size(stream.max_bytes)}: events ${inWindow(stream)}`,
    "Can be resumed": stream.recorded ? "yes" : "no: it is not recorded",
  };
  for (const [index, [name, value]] of Object.entries(facts).entries()) {
    const entry = list.children[index] ?? list.appendChild(document.createElement("div"));
    if (!entry.firstChild) entry.append(document.createElement("dt"), document.createElement("dd"));
    text(entry.firstChild, name);
    text(entry.lastChild, value);
  }
}

function inWindow({ first, last, evicted }) {
  if (last < first) return "none";
  return evicted ? `${first} to ${last}, ${evicted} older ones fell out` : `${first} to ${last}`;
}

function stateOf(stream) {
  if (stream.reason !== null) return stream.reason.replaceAll("_", " ");
  return stream.paused ? "paused" : stream.state;
}

function tone({ reason, state, paused }) {
  if (reason !== null) return reason === "complete" || reason === "cancelled" ? "over" : "broken";
  return paused ? "paused" : state;
}

/** Put the lines into this order, and move none that stands where it should: focus survives. */
function arrange(wanted) {
  let here = rows.firstElementChild;
  for (const line of wanted) {
    if (line === here) here = here.nextElementSibling;
    else rows.insertBefore(line, here);
  }
}

// Words

/** Set a text, if it is another one. */
function text(node, value) {
  if (node.textContent !== String(value)) node.textContent = value;
}

function clock(date) {
  return date.toLocaleTimeString();
}

function span(seconds) {
  if (seconds < 0.1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const power = Math.min(3, Math.floor(Math.log2(bytes) / 10));
  const number = bytes / 1024 ** power;
  return `${number.toFixed(number < 10 ? 1 : 0)} ${["B", "KiB", "MiB", "GiB"][power]}`;
}

// What the operator does

/** What is typed, but of a whole id, or an event's, as much as is ever shown: it opens the stream, and an address is no place for it. */
function shown(typed) {
  const [stream] = typed.trim().split(".");
  return stream.length >= named + 22 ? stream.slice(0, named + 6) : typed;
}

/** The view that the address names, so that it can be sent to a colleague. */
const wanted = new URLSearchParams(location.hash.slice(1));
for (const [name, value] of wanted) {
  const field = form.elements.namedItem(name);
  if (name === "route") field.append(new Option(value, value));
  if (field) field.value = value;
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => {
  const { stream } = form.elements;
  if (shown(stream.value) !== stream.value) stream.value = shown(stream.value); // else the cursor would move
  const query = new URLSearchParams(choice().filter(([name, value]) => name !== "sort" || value !== "newest"));
  history.replaceState(null, "", String(query) ? `#${query}` : location.pathname);
  look(true);
});

element("hold").addEventListener("click", () => {
  held = !held;
  element("hold").ariaPressed = String(held);
  if (!held) look();
});

document.addEventListener("visibilitychange", () => document.hidden || look());

look();
