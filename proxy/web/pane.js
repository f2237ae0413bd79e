/** One viewer of one stream on the page: it reads, keeps a record, and shows it, once a frame at most. */

import { openStream, perFrame } from "./client.js";
import { draw } from "./plot.js";
import { Record, said } from "./record.js";

const STATES = { connecting: "asking", open: "streaming", waiting: "reconnecting", closed: "ended" };

/** Unless something arrives, the plot moves on so often, in milliseconds; and so often where less motion is wanted. */
const IDLE_FRAME = 50;
const CALM_FRAME = 1000;

/** So much of a text stays on the page, in characters; once it is twice as much, the oldest goes. */
const MOST_TEXT = 60_000;

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Pane {
  #element;
  #answer;
  #base;
  #announce;
  #changed;
  #unshown = ""; // text that came and is not on the page yet
  #written = 0; // characters on the page
  #drawnAt = -Infinity;
  #departure = new AbortController();
  #stopping = null;
  #stale = true;
  #happenings;

  /**
   * @param {object} options
   * @param {(options: object) => object} options.open  begins to read with these options more: an answer of client.js
   * @param {string} options.title
   * @param {string} options.via      how the stream comes, in words
   * @param {string} options.base     the sidecar's root
   * @param {(sentence: string) => void} options.announce  for those who hear the page
   * @param {() => void} options.changed  called when the state changes
   */
  constructor({ open, title, via, base, announce, changed }) {
    this.#base = base;
    this.#announce = announce;
    this.#changed = changed;
    this.#element = document.getElementById("pane").content.firstElementChild.cloneNode(true);
    this.#find("h2").textContent = title;
    this.#find(".via").textContent = via;
    this.#find(".text").setAttribute("aria-label", `${title}: the text`);
    for (const control of [".tab", ".close"]) {
      this.#find(control).setAttribute("aria-label", `${this.#find(control).textContent}: ${title}`);
    }
    this.#happenings = this.#find(".happenings ol");
    this.record = new Record(performance.now());
    this.verified = false; // whether the stream was read again whole, and compared
    this.#tell("asked", this.record.began);
    this.#answer = open({ observe: (told) => this.#observe(told), signal: this.#departure.signal });
    this.finished = this.#read();
  }

  get element() {
    return this.#element;
  }

  get state() {
    return this.record.state;
  }

  get stream() {
    return this.record.stream;
  }

  get running() {
    return this.record.state !== "closed";
  }

  /** Whether nothing will change any more, and all is shown. */
  get settled() {
    return this.verified && !this.#stale;
  }

  /** Called when the reader of the page closes the pane. */
  onClose(close) {
    this.#find(".close").addEventListener("click", close);
  }

  /** Lose the connection; the reader comes back. */
  drop() {
    this.#answer.drop();
  }

  /** Stop the stream where it is made. */
  stop() {
    this.#stopping = this.#answer.cancel().catch((error) => this.#tell(`the stop did not arrive: ${error.message}`));
  }

  /** Close this reader's connection; the stream goes on for others. */
  leave() {
    this.#departure.abort();
  }

  // Reading

  async #read() {
    this.#answer.opened.then(
      ({ stream, status }) => this.#opened(stream, status),
      () => {}, // what went wrong is thrown to whoever reads
    );
    let fault = null;
    try {
      for await (const events of perFrame(this.#answer)) {
        for (const event of events) this.#unshown += this.record.add(event);
        if (this.#unshown.length > 2 * MOST_TEXT) this.#unshown = this.#unshown.slice(-MOST_TEXT); // nobody looks
        this.#stale = true;
      }
    } catch (error) {
      fault = error;
    }
    if (!this.#departure.signal.aborted) await this.#finish(fault);
  }

  #opened(stream, status) {
    this.record.stream = stream;
    this.#tell(stream ? `the answer begins: ${status}, stream ${shortened(stream)}` : `the answer begins: ${status}`);
    this.#announce(`${this.#find("h2").textContent}: Streaming.`);
    if (!stream) return;
    const link = this.#find(".tab");
    link.href = `#stream=${stream}`;
    link.hidden = false;
    this.#changed();
  }

  #observe(told) {
    const { record } = this;
    record.note(told);
    this.#stale = true;
    if (told.type === "state") this.#changed();
    if (told.type === "heartbeat") this.#tell("heartbeat", told.at);
    if (told.type === "drop") {
      this.#tell(`connection lost after event ${told.after}`, told.at, "alarm");
      this.#say(`Connection lost after event ${told.after}; resuming.`, "alarm");
    }
    if (told.type === "resume") {
      this.#tell(`resumed after event ${told.after}`, told.at, "accent");
      this.#say(`Resumed after event ${told.after}.`);
      this.#seam(told.after);
    }
  }

  async #finish(fault) {
    const { record } = this;
    record.state = "closed";
    record.end = ending(this.#answer.end, fault);
    record.endedAt = performance.now();
    this.#tell(`the end: ${[record.end.reason, record.end.message].filter(Boolean).join(", ")}`, record.endedAt);
    this.#changed();
    const { verdict, good } = await this.#judge(fault);
    this.verified = true;
    if (this.#departure.signal.aborted) return;
    this.#tell(verdict, performance.now(), good ? "accent" : "alarm");
    this.#say(verdict, good ? "accent" : "alarm");
    this.#stale = true;
    this.#changed();
  }

  /** What to say of the end, and whether it is a good one. */
  async #judge(fault) {
    const { record } = this;
    const broken = fault && (record.complaint ?? fault.message);
    if (!record.stream || !record.events) {
      if (!broken) return { verdict: "No stream.", good: true };
      const status = fault.status && !broken.includes(fault.status) ? `${fault.status}, ` : "";
      return { verdict: sentence(`No stream: ${status}${broken}`), good: false };
    }
    const comparison = await this.#compare();
    const after = record.resumes.map((resume) => resume.after);
    const resumed = after.length ? `resumed after ${listed(after)}; ` : "";
    const passed = record.complaint ? `${sentence(capital(record.end.reason))} The app told of an error: ${record.complaint}` : null;
    const ended = broken ? `Told of a broken end (${record.end.reason}): ${broken}` : (passed ?? capital(record.end.reason));
    return {
      verdict: `${sentence(ended)} ${sentence(capital(resumed + comparison.told))}`,
      good: comparison.same && !broken && !passed,
    };
  }

  /** Read the stream again whole, from its log, and hold it against what came. */
  async #compare() {
    try {
      await this.#stopping;
      const state = await (await fetch(new URL(`_streams/${this.stream}/state`, this.#base))).json();
      const whole = [];
      const again = openStream(null, { stream: this.stream, after: state.first - 1, base: this.#base });
      try {
        for await (const event of again) whole.push(said(event));
      } catch (error) {
        if (!again.end || again.end.reason !== this.record.end.reason) throw error; // it ends as it ended
      }
      const difference = this.record.difference(whole, state.first, this.#stopping !== null);
      return difference
        ? { same: false, told: `NOT whole, ${difference}` }
        : { same: true, told: `nothing lost: ${this.#compared()}, the same as the stream read again whole` };
    } catch (error) {
      return { same: false, told: `it could not be read again: ${error.message}` };
    }
  }

  #compared() {
    const { record } = this;
    const all = `${record.events} event${record.events === 1 ? "" : "s"}`;
    return record.forgotten ? `${all}, of which the last ${record.data.length}` : all;
  }

  // Showing

  /** Bring the page up to date, if anything has changed: called once a frame. */
  render(now, colours) {
    const due = this.running && now - this.#drawnAt >= (calm.matches ? CALM_FRAME : IDLE_FRAME);
    if (!this.#stale && !due) return;
    this.#stale = false;
    this.#drawnAt = now;
    this.#write();
    this.#figures(now);
    draw(this.#find("canvas"), this.record, this.record.endedAt ?? now, colours);
  }

  /** Draw again, whatever has happened: colours or sizes may have changed. */
  refresh() {
    this.#stale = true;
  }

  #write() {
    if (!this.#unshown) return;
    const box = this.#find(".text");
    const newestSeen = atBottom(box);
    if (box.lastChild?.nodeType !== Node.TEXT_NODE) box.append("");
    box.lastChild.appendData(this.#unshown);
    this.#written += this.#unshown.length;
    this.#unshown = "";
    if (this.#written > 2 * MOST_TEXT) this.#shorten(box);
    if (newestSeen) box.scrollTop = box.scrollHeight;
  }

  /** Take the oldest text off the page. */
  #shorten(box) {
    for (let excess = this.#written - MOST_TEXT; excess > 0; ) {
      const oldest = box.firstChild;
      const length = oldest.textContent.length;
      if (length > excess) oldest.deleteData(0, excess);
      else oldest.remove();
      excess -= length;
    }
    this.#written = box.textContent.length;
  }

  /** Mark where the text was continued. */
  #seam(after) {
    this.#write();
    const mark = document.createElement("i");
    mark.className = "seam";
    mark.title = `resumed after event ${after}`;
    this.#find(".text").append(mark);
  }

  #figures(now) {
    const { record } = this;
    const badge = this.#find(".badge");
    badge.dataset.state = record.state;
    badge.textContent = record.end ? `ended: ${record.end.reason}` : STATES[record.state];
    const silence = this.running && record.lastEvent !== null ? now - record.lastEvent : 0;
    const shown = {
      first: seconds(record.timeToFirstWord),
      rate: record.rate === null ? "–" : record.rate.toFixed(1),
      words: record.words,
      events: record.events,
      gap: record.lastEvent === null ? "–" : seconds(Math.max(record.longestGap, silence) / 1000),
      beats: record.beats.length,
      resumes: record.resumes.length ? `${record.resumes.length} ×` : "–",
      bytes: kilobytes(record.bytes),
      id: brief(record.lastId) || "–",
    };
    for (const [name, value] of Object.entries(shown)) {
      const cell = this.#find(`[data-figure="${name}"]`);
      if (cell.textContent !== String(value)) cell.textContent = value;
    }
    this.#find("canvas").setAttribute("aria-label", this.#described());
  }

  /** The plot in a sentence. */
  #described() {
    const { record } = this;
    const lost = record.drops.length ? `, connection lost ${record.drops.length} times` : "";
    const gap = record.events > 1 ? `, longest gap ${seconds(record.longestGap / 1000)}` : "";
    return `Arrivals over time: ${record.events} events${gap}, ${record.beats.length} heartbeats${lost}`;
  }

  #tell(what, at = performance.now(), tone = "") {
    const item = document.createElement("li");
    const time = document.createElement("span");
    time.className = "mono quiet";
    time.textContent = `${((at - this.record.began) / 1000).toFixed(2)} s`;
    item.dataset.tone = tone;
    const words = document.createElement("span");
    words.textContent = what;
    item.append(time, " ", words);
    const list = this.#happenings;
    const newestSeen = atBottom(list);
    list.append(item);
    while (list.childElementCount > 200) list.firstElementChild.remove();
    if (newestSeen) list.scrollTop = list.scrollHeight;
  }

  #say(what, tone = "accent") {
    const verdict = this.#find(".verdict");
    verdict.hidden = false;
    verdict.dataset.tone = tone;
    verdict.textContent = what;
    this.#announce(`${this.#find("h2").textContent}: ${what}`);
  }

  #find(selector) {
    return this.#element.querySelector(selector);
  }
}

/** How it ended, as the reader tells; where a status was all that came, that is the reason. */
function ending(end, fault) {
  const known = end ?? { reason: fault?.code ?? "complete", message: fault?.message };
  return ["status", "upstream-status"].includes(known.reason) ? { ...known, reason: String(fault.status) } : known;
}

/** Whether the end of a box is in view. */
function atBottom(box) {
  return box.scrollHeight - box.scrollTop - box.clientHeight < 24;
}

/** As much of a stream's id as logs show. */
export function shortened(stream) {
  return `${stream.slice(0, Math.max(0, stream.length - 22) + 6)}…`;
}

/** A block's id with the middle of the stream's left out. */
function brief(id) {
  const [, stream, seq] = /^(.{22,})\.(\d+)$/.exec(id) ?? [];
  return stream ? `${shortened(stream)}.${seq}` : id.slice(0, 40);
}

function seconds(value) {
  if (value === null) return "–";
  return value < 10 ? `${value.toFixed(2)} s` : `${value.toFixed(1)} s`;
}

function kilobytes(bytes) {
  return bytes < 1000 ? `${bytes} B` : bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function listed(numbers) {
  const shown = numbers.slice(0, 5).join(", ");
  return numbers.length > 5 ? `${shown} and ${numbers.length - 5} more` : shown;
}

function capital(words) {
  return words.charAt(0).toUpperCase() + words.slice(1).replaceAll("_", " ");
}

function sentence(words) {
  return words.endsWith(".") ? words : `${words}.`;
}
