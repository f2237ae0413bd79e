/** What one viewer has seen of a stream: plain numbers, from which the page and its plot are drawn. */

import { complaint, spoken } from "./request.js";

/** So many events are remembered one by one, as many as a stream's log holds by default; of older ones, sums. */
export const MOST = 10_000;

/** And so much of what they say, in characters: twice what such a log holds. */
export const MOST_CHARACTERS = 8 * 1024 * 1024;

/** What an event says. JSON is JSON, however it is spaced: a WebSocket's frame holds it parsed. */
export function said({ data, json }) {
  return json === undefined ? data : JSON.stringify(json);
}

export class Record {
  /** @param {number} began  performance.now() of the request; all times here are on that clock */
  constructor(began) {
    this.began = began;
    this.stream = null;
    this.state = "connecting";
    this.events = 0;
    this.words = 0;
    this.bytes = 0;
    this.firstWord = null;
    this.lastWord = null;
    this.lastEvent = null;
    this.longestGap = 0;
    this.lastId = "";
    /** @type {number[]} when each event arrived; `forgotten` older ones are not there any more */
    this.arrivals = [];
    /** @type {string[]} what they said, in one form for both transports */
    this.data = [];
    this.characters = 0; // in `data`
    this.forgotten = 0;
    this.firstSeq = null;
    this.lastSeq = null;
    /** Events whose number did not follow the one before: there must be none. */
    this.jumps = 0;
    this.beats = [];
    /** @type {{ at: number, after: number }[]} */
    this.drops = [];
    /** @type {{ at: number, after: number }[]} */
    this.resumes = [];
    this.complaint = null;
    this.end = null;
    this.endedAt = null;
  }

  /** Take an event; return the text that it adds. */
  add(event) {
    const at = event.at;
    const text = spoken(event);
    if (this.lastEvent !== null) this.longestGap = Math.max(this.longestGap, at - this.lastEvent);
    if (this.lastSeq !== null && event.seq !== this.lastSeq + 1) this.jumps += 1;
    this.firstSeq ??= event.seq;
    this.lastSeq = event.seq;
    this.lastEvent = at;
    this.lastId = event.id || this.lastId;
    this.events += 1;
    this.arrivals.push(at);
    this.data.push(said(event));
    this.characters += this.data.at(-1).length;
    this.complaint ??= complaint(event);
    if (text) {
      this.words += 1;
      this.firstWord ??= at;
      this.lastWord = at;
    }
    if (this.arrivals.length >= 2 * MOST || this.characters >= 2 * MOST_CHARACTERS) this.#forget();
    return text;
  }

  #forget() {
    let old = 0;
    for (const left = () => this.data.length - old; left() > MOST || (left() > 1 && this.characters > MOST_CHARACTERS); ) {
      this.characters -= this.data[old].length;
      old += 1;
    }
    this.arrivals.splice(0, old);
    this.data.splice(0, old);
    this.forgotten += old;
  }

  /** Take what the reader tells of its connection. */
  note({ type, at, ...told }) {
    if (type === "state") this.state = told.state;
    if (type === "read") this.bytes += told.bytes;
    if (type === "heartbeat") this.beats.push(at);
    if (type === "drop") this.drops.push({ at, after: told.after });
    if (type === "resume") this.resumes.push({ at, after: told.after });
    for (const times of [this.beats, this.drops, this.resumes]) if (times.length > MOST) times.shift();
  }

  /** Seconds from the request to the first word; null before it. */
  get timeToFirstWord() {
    return this.firstWord === null ? null : (this.firstWord - this.began) / 1000;
  }

  /** Words a second between the first and the last one; null where there are not two moments. */
  get rate() {
    const seconds = (this.lastWord - this.firstWord) / 1000;
    return this.words > 1 && seconds > 0 ? (this.words - 1) / seconds : null;
  }

  /** Events by the moment in which they came: `[at, number]`. What one read brought is one lump. */
  get lumps() {
    const lumps = [];
    for (const at of this.arrivals) {
      const last = lumps.at(-1);
      if (last && at - last[0] < 1) last[1] += 1;
      else lumps.push([at, 1]);
    }
    return lumps;
  }

  /**
   * Compare what came with the whole stream, read again from number `first` on: `whole` is what its events say.
   * Behind a reader that was `stopped` there may be more.
   *
   * @returns {string | null} null where they are the same, else what is not
   */
  difference(whole, first, stopped) {
    if (this.jumps) return `${this.jumps} times an event's number did not follow the one before`;
    const offset = this.lastSeq + 1 - this.data.length; // the number of data[0]
    const from = Math.max(first, offset);
    const here = this.data.slice(from - offset);
    const there = whole.slice(from - first, stopped ? this.lastSeq + 1 - first : undefined);
    if (here.length !== there.length) return `${here.length} events came, ${there.length} are in the stream`;
    const index = here.findIndex((data, position) => data !== there[position]);
    return index === -1 ? null : `event ${from + index} differs`;
  }
}
