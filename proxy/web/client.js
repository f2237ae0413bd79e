/**
 * Event streams that outlive their connections.
 *
 *     for await (const event of openStream("/v1/chat/completions", { body: { stream: true, … } }))
 *       show(event.json?.choices[0]?.delta.content ?? "");
 *
 * `openStream` reads Server-Sent Events with fetch, so that a POST can stream too; `openSocket` reads the same streams
 * over the WebSocket bridge. Both return an answer: an async iterable of events, each once and in order, however often
 * the connection breaks. `perFrame` bundles them for a page: one DOM update an animation frame.
 *
 * A request is sent once. What a broken connection did not bring is read from the stream's own address,
 * `/_streams/ID?after=n`, which never makes the provider work again. Nothing is read ahead of whoever takes the events,
 * so a slow reader slows its stream down, and memory is bounded by the largest event.
 *
 * No dependencies. Browsers and Node 20. docs/client.md is the manual, client.d.ts has the types.
 */

/** The bridge's name among a WebSocket's subprotocols. */
const SUBPROTOCOL = "sse-sidecar.v1";

/** Ids that sse-sidecar writes: a stream, perhaps with its node in front, a dot, a number. */
const OUR_ID = /^((?:[a-z0-9][a-z0-9-]*-)?[\w-]{22})\.(\d+)$/;

/** Ends after which nothing is missing that somebody wanted. Every other one is thrown. */
const GOOD_ENDS = ["complete", "cancelled", "closed"];

/** Statuses that pass, besides a server's own failures; and those of the latter that do not. */
const PASSING = [408, 425, 429];
const LASTING = [501, 505];

/** Statuses of a stream that nobody has any more. */
const GONE = [404, 410];

/** A WebSocket's close codes that would only come again: a protocol or a policy broken, a message too big. */
const FINAL_CODES = [1002, 1003, 1007, 1008, 1009, 1010];

/** No wait is longer, whatever a server asks for: an hour, in ms. And the longest that a timer counts. */
const LONGEST_WAIT = 3_600_000;
const LONGEST_TIMER = 2 ** 31 - 1;

/** The pause before the rest of a stream that is over, in ms: browsers lose what comes together with a broken end. */
const HURRIED_DELAY = 50;

/** How long the body of an answer that is no stream is waited for, and the answer to a cancel, in ms. */
const BODY_PATIENCE = 2_000;
const CANCEL_PATIENCE = 10_000;

/** A WebSocket cannot be told to wait: with so many characters untaken it is dropped, and resumed later. */
const MAX_UNTAKEN = 16 * 1024 * 1024;

/** `perFrame` reads no further than this in one frame. */
const FULL_BATCH = 1_000;

/** What passes for a frame where none is drawn, in ms: outside of a page, and in one that is hidden. */
const FRAME = 16;
const HIDDEN_FRAME = 500;

/** Why there is no stream, or not all of it. docs/client.md lists the codes. */
export class StreamError extends Error {
  name = "StreamError";

  code;
  recoverable = false;

  /** @param {import("./client.js").StreamErrorFacts} facts what else is known */
  constructor(code, message, facts = {}) {
    const { cause, ...known } = facts;
    super(message, cause === undefined ? undefined : { cause });
    Object.assign(this, { code }, known);
  }
}

/** One event, with its data parsed when that is first asked for. */
class StreamEvent {
  id;
  seq;
  event;
  data;
  at;
  /** @type {any} */
  #json = StreamEvent; // until then

  constructor(fields) {
    Object.assign(this, fields);
  }

  get json() {
    if (this.#json === StreamEvent) this.#json = parsed(this.data);
    return this.#json;
  }
}

/** Parses text/event-stream as the WHATWG HTML standard says (§9.2.6), from text in pieces of any size. */
export class EventParser {
  /** Id of the newest event: what an EventSource would send as Last-Event-ID. */
  lastEventId;
  /** The newest `retry`, in ms, or null. */
  retry = null;

  #onComment;
  #line = "";
  #returned = false; // whether the last piece ended in CR: an LF that follows belongs to it
  #fields = 0; // lines since the last empty one
  #id;
  #event = "";
  #data = null;

  /** @param {(comment: string) => void} onComment hears each comment, and "" for an empty line that ends nothing */
  constructor(lastEventId = "", onComment = () => {}) {
    this.lastEventId = lastEventId;
    this.#onComment = onComment;
  }

  /** Takes text and returns the events that it completes: `{ lastEventId, id, event, data }`, `id` being its own. */
  feed(text) {
    const events = [];
    const ends = /\r\n?|\n/g;
    let start = (ends.lastIndex = this.#returned && text.startsWith("\n") ? 1 : 0);
    for (let end; (end = ends.exec(text)); start = ends.lastIndex) {
      const line = this.#line + text.slice(start, end.index);
      this.#line = "";
      if (line === "") this.#dispatch(events);
      else this.#take(line);
    }
    this.#line += text.slice(start);
    if (text !== "") this.#returned = text.endsWith("\r");
    return events;
  }

  #take(line) {
    this.#fields += 1;
    const colon = line.indexOf(":");
    if (colon === 0) return this.#onComment(line.slice(1).trim());
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (field === "data") this.#data = this.#data === null ? value : `${this.#data}\n${value}`;
    else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
  }

  #dispatch(events) {
    if (this.#fields === 0) this.#onComment("");
    const [id, event, data] = [this.#id, this.#event || "message", this.#data];
    this.lastEventId = id ?? this.lastEventId;
    if (data !== null) events.push({ lastEventId: this.lastEventId, id, event, data });
    [this.#fields, this.#id, this.#event, this.#data] = [0, undefined, "", null];
  }
}

/** A stream that is being read: its state, its end, its patience. How it is read is its subclass's business. */
class Answer {
  stream;
  seq;
  /** @type {import("./client.js").State} */
  state = "connecting";
  end = null;
  opened;

  _head = null; // what `opened` resolves with
  _first; // the promise of the first connection
  _delay; // before the first new attempt, in ms
  _hurried = false; // whether all that is to come is there already

  #signal;
  #observe;
  #retry;
  #attempt = 0; // how often it was tried since something last came
  #wake = null; // ends a pause
  #taken = false; // whether somebody reads the events
  #stopped = false; // whether the reader ended it
  #over = false; // whether the stream itself is known to have ended
  #cancelling = null;
  #abort = () => this.#stop("aborted");

  /** @param {import("./client.js").StreamOptions} options */
  constructor({ stream = null, after = 0, signal, observe, retry, feed = false }) {
    this.stream = stream;
    this.seq = after === "now" ? 0 : after;
    this.#signal = signal;
    this.#observe = observe;
    this.#retry = { delay: 1_000, max: 30_000, attempts: feed ? Infinity : 20, ...retry };
    this._delay = this.#retry.delay;
  }

  [Symbol.asyncIterator]() {
    if (this.#taken) throw new TypeError("this answer is read already; open a second one on the same stream");
    this.#taken = true;
    const events = this.#events();
    return {
      next: () => events.next(),
      return: () => {
        this.#stop("left");
        return events.return();
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** Stops the stream itself, for all its readers; resolves with its end when the sidecar has confirmed it. */
  cancel() {
    return (this.#cancelling ??= this.#cancel());
  }

  /** Loses the connection, or the attempt at the next one, as a network would. */
  drop() {
    if (this.state === "open" || this.state === "waiting") this._lose("drop()");
  }

  // What a subclass has: yield events in arrays; lose the connection, or end it for good; stop the stream.

  /** @returns {AsyncGenerator<StreamEvent[]>} */
  async *_batches() {}
  _lose(_cause) {}
  _hangUp() {}
  /** @returns {Promise<object>} */
  async _cancel() {
    return {};
  }

  /** Begins, with a function that returns the promise of the first connection. */
  _begin(connect) {
    const begin = async () => {
      await null; // whoever observes has the answer then
      if (this.#signal?.aborted) this.#abort();
      this._checkGoing();
      return connect();
    };
    this.#signal?.addEventListener("abort", this.#abort);
    this._first = begin().catch((error) => Promise.reject(this.#failed(error)));
    this.opened = this._first.then(() => this._head);
    this.opened.catch(() => {}); // whoever only reads the events hears of it there
  }

  /** Notes that a connection is there. */
  _connected(head) {
    this.#become("open");
    if (this._head) this._tell("resume", { after: this.seq, attempt: this.#attempt });
    this._head ??= head;
  }

  /** Notes that something came: the next loss will be the first one again. */
  _progress() {
    this.#attempt = 0;
  }

  /** Notes that events are missing; returns the number of the last of them, or 0 where nobody knows it. */
  _skip(gap) {
    const { from, to } = gap ?? {};
    this._tell("gap", { from, to });
    return Number.isInteger(to) ? to : 0;
  }

  /** Tries until it works, after a pause each time; `atOnce` leaves out the first. Throws what will not pass. */
  async _persist(attempt, atOnce = false) {
    /** @type {any} */
    let failure = this._error("unreachable", "connections are made, and nothing comes through them");
    for (let waits = !atOnce || this.#attempt > 0; ; waits = true) {
      if (this.#attempt >= this.#retry.attempts) throw failure;
      if (waits && !this.end) await this.#pause(failure.retryAfter);
      this._checkGoing();
      this.#attempt += 1;
      try {
        return await attempt();
      } catch (error) {
        if (this.end || !error.recoverable) throw error;
        failure = error;
        this._hurried = false;
      }
    }
  }

  _checkGoing() {
    if (this.end) throw this._error(this.end.reason, "the reader has stopped");
  }

  _error(code, message, facts) {
    return new StreamError(code, message, { stream: this.stream, seq: this.seq, ...facts });
  }

  /** Ends with what is known of the stream's end. Throws StreamError where something is missing. */
  _conclude(end) {
    this.#over = true;
    this.#finish(end);
    if (GOOD_ENDS.includes(end.reason)) return;
    throw this._error(end.reason, end.message ?? `the stream ended: ${end.reason}`);
  }

  _tell(type, facts) {
    try {
      this.#observe?.({ type, at: performance.now(), ...facts });
    } catch (error) {
      (globalThis.reportError ?? console.error)(error); // the observer's fault, not the stream's
    }
  }

  async *#events() {
    try {
      for await (const batch of this._batches()) {
        for (const event of batch) {
          if (this.#stopped) break;
          this.seq = event.seq;
          yield event;
        }
        if (this.#stopped) break;
      }
    } catch (error) {
      if (!this.#stopped) throw this.#failed(error);
    }
    if (this.end.reason === "aborted") throw this.#signal.reason;
  }

  async #cancel() {
    if (this.end && (this.#over || !this.stream)) return this.end;
    const told = this._cancel(); // also where the reader has left, or given up: the stream may run on
    this.#stop("cancelled");
    try {
      const known = await told;
      const end = { ...known, reason: known.reason ?? "cancelled" };
      return this.#stopped ? Object.assign(this.end, end) : end; // what the loop threw is still how it ended
    } catch (error) {
      this.#cancelling = null;
      throw this._error("cancel-failed", `the stream may run on: ${error.message}`, { cause: error });
    }
  }

  #stop(reason) {
    this.#stopped ||= !this.end;
    this.#finish({ reason });
  }

  /** Ends with an error, and returns it; where the reader stopped before there was a stream, that is the error. */
  #failed(error) {
    if (!this.#stopped) {
      this.#finish({ reason: error.code ?? "failed", message: error.message });
      return error;
    }
    const { reason } = this.end;
    return reason === "aborted" ? this.#signal.reason : this._error(reason, "there was no stream yet");
  }

  #finish(end) {
    if (this.end) return;
    this.end = end;
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#wake?.();
    this._hangUp();
    this.#become("closed");
    this._tell("end", { reason: end.reason, message: end.message });
    this.#observe = null; // that was the last word
  }

  /** Waits: twice as long each time, and not as long as others do; without a network, until there is one. */
  async #pause(atLeast = 0) {
    const { max } = this.#retry;
    const doubled = Math.min(max, Math.max(this._delay, 100) * 2 ** this.#attempt);
    const patient = Math.max(atLeast, this._delay, this.#attempt && doubled) * (1 + 0.4 * Math.random());
    const wait = this._hurried ? HURRIED_DELAY : patient;
    const offline = globalThis.navigator?.onLine === false;
    if (offline) this.#attempt = 0; // nobody is to blame
    this.#become("waiting");
    let timer;
    await new Promise((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, Math.min(offline ? max : wait, LONGEST_WAIT));
      if (offline) globalThis.addEventListener("online", resolve);
    });
    clearTimeout(timer);
    if (offline) globalThis.removeEventListener("online", this.#wake);
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this._tell("state", { state });
  }
}

/** A stream over HTTP. */
class StreamAnswer extends Answer {
  #fetch;
  #url;
  #named; // the origins that the caller named: its headers are for them
  #init;
  #again; // the same request for what followed: GET, without the body and what described it
  #feed;
  #silence;
  #fromNow;
  #home = null; // the stream's own address
  #recorded = true; // whether it can be read there
  #position = 0; // the number of the newest event of this connection
  #lastEventId;
  #line = new AbortController(); // of the connection
  #lost = null; // why we ended it
  #comeAgain = false; // whether all that it brought was when to come again

  /** @param {import("./client.js").StreamOptions} options */
  constructor(url, options = {}) {
    const { observe, retry, silence = 60_000, stream, after, base, feed = false, signal, ...request } = options;
    super({ stream, after, signal, observe, retry, feed });
    const { fetch = globalThis.fetch, body, headers, method = body === undefined ? "GET" : "POST", ...init } = request;
    this.#fetch = (address, settings) => fetch(address, settings);
    this.#url = locate(url ?? base ?? "/");
    this.#feed = feed;
    this.#silence = silence;
    this.#fromNow = after === "now";
    const sent = new Headers(headers);
    if (!sent.has("Accept")) sent.set("Accept", "text/event-stream");
    if (isPlain(body) && !sent.has("Content-Type")) sent.set("Content-Type", "application/json");
    this.#lastEventId = sent.get("Last-Event-ID") ?? "";
    const content = isPlain(body) ? JSON.stringify(body) : body;
    this.#init = { cache: "no-store", ...init, method: method.toUpperCase(), headers: sent, body: content };
    this.#again = { ...this.#init, method: "GET", headers: withoutBody(sent), body: undefined, duplex: undefined };
    if (feed && this.#init.method !== "GET") throw new TypeError("a feed is asked for again: only a GET can be");
    if (stream) this.#home = base === undefined ? homeOf(stream, this.#url) : new URL(pathOf(stream), locate(base));
    this.#named = [this.#url, this.#home ?? this.#url].map(({ origin }) => origin);
    this._begin(() => {
      if (stream) return this._persist(() => this.#resume(), true);
      return feed ? this._persist(() => this.#ask(), true) : this.#ask();
    });
  }

  async *_batches() {
    for (let response = await this._first; response; ) {
      const clean = response.status === 204 || (yield* this.#read(response));
      response = await this.#next(clean);
    }
    this._conclude({ reason: "closed" }); // a feed's 204; where it is known better, it has ended before
  }

  /** Sends the request: at first as it was given, later as an EventSource would send it again. Null ends a feed. */
  async #ask() {
    const headers = new Headers(this.#again.headers);
    if (this.#lastEventId) headers.set("Last-Event-ID", this.#lastEventId);
    const response = await this.#request(this.#url, this._head ? { ...this.#again, headers } : this.#init);
    return this.#feed && response.status === 204 ? null : response;
  }

  #resume() {
    const address = new URL(this.#home);
    address.searchParams.set("after", this.#fromNow ? "now" : String(this.seq));
    return this.#inTime(this.#request(address, this.#again)); // a sidecar answers it at once
  }

  /** One request that is answered with a stream, or with nothing where that is an answer. Throws StreamError. */
  async #request(url, init) {
    const response = await this.#send(url, init);
    this._checkGoing();
    const nothing = response.status === 204 && init.method === "GET";
    if (!nothing && !isEventStream(response)) throw await this.#refusal(response);
    this.#adopt(response);
    this._connected({ stream: this.stream, status: response.status, headers: response.headers });
    return response;
  }

  async #send(url, init) {
    this._checkGoing();
    this.#lost = null;
    this.#comeAgain = false;
    this.#line = new AbortController();
    try {
      return await this.#fetch(url, { ...init, signal: this.#line.signal });
    } catch (cause) {
      const why = this.#lost ?? cause.message;
      throw this._error("unreachable", `no answer from ${url}: ${why}`, { cause, recoverable: true });
    }
  }

  /** The error that an answer is which is no stream. */
  async #refusal(response) {
    const { ok, status, headers } = response;
    const body = await within(BODY_PATIENCE, response.text()).catch(() => "");
    this.#line.abort();
    const said = parsed(body);
    const [, kind] = /^urn:sse-sidecar:problem:(.+)$/.exec(said?.type) ?? [];
    const why = [said?.detail, said?.error?.message, said?.message].find((each) => typeof each === "string");
    const passes = PASSING.includes(status) || (status >= 500 && !LASTING.includes(status));
    return this._error(kind ?? (ok ? "not-a-stream" : "status"), why ?? `HTTP ${status}, which is no event stream`, {
      status,
      body,
      recoverable: passes && headers.get("x-should-retry") !== "false",
      retryAfter: retryAfter(headers),
    });
  }

  /** Notes which stream a response is of, and behind which of its events it begins. */
  #adopt(response) {
    const stream = response.headers.get("Stream-Id");
    if (!stream) return;
    const follows = stream === this.stream && !this.#fromNow;
    this.#position = Number(response.headers.get("Stream-Resumed-From") ?? (follows ? this.seq : 0)) || 0;
    if (!follows) this.seq = this.#position;
    this.#fromNow = false;
    this._hurried = response.headers.get("Stream-Closed") === "true";
    this.#settle(stream, response.url || this.#url, response.headers.get("Link"));
  }

  /** Notes where a stream can be resumed. */
  #settle(stream, url, link) {
    const { resume, cancel } = linksOf(link, stream, url);
    if (resume) this.#home = resume;
    else if (!this.#home || stream !== this.stream) this.#home = homeOf(stream, url);
    this.#recorded = resume !== undefined || cancel === undefined;
    this.stream = stream;
    const named = this.#named.includes(this.#home.origin);
    if (!named) this.#again.headers = new Headers({ Accept: "text/event-stream" });
  }

  /** Yields what a response brings, read by read; returns whether it ended in good order. */
  async *#read(response) {
    const reader = response.body?.getReader();
    const decoder = new TextDecoder();
    const parser = new EventParser(this.#lastEventId, (comment) => {
      this._progress();
      this._tell("heartbeat", { comment });
    });
    try {
      for (let count = 0; ; ) {
        const { done, value, error } = await this.#piece(reader);
        this.#comeAgain = count === 0 && parser.retry !== null;
        if (done) return true;
        if (error) {
          this._tell("drop", { after: this.seq, cause: this.#lost ?? error.message });
          return false;
        }
        const at = performance.now();
        const blocks = parser.feed(decoder.decode(value, { stream: true }));
        this.#lastEventId = parser.lastEventId;
        this._delay = parser.retry ?? this._delay;
        const events = blocks.map((block) => this.#event(block, at)).filter((event) => event !== null);
        this._tell("read", { bytes: value.byteLength, events: events.length });
        if (events.length > 0) this._progress();
        count += blocks.length;
        yield events;
      }
    } finally {
      reader?.cancel().catch(() => {});
    }
  }

  /** The next read, or its error. One that takes too long is a loss, where the stream can be resumed. */
  async #piece(reader) {
    const read = reader?.read() ?? Promise.resolve({ done: true });
    try {
      return await (this.#home && this.#recorded ? this.#inTime(read) : read);
    } catch (error) {
      return { error };
    }
  }

  /** What a promise brings. Where that takes too long, the connection counts as lost. */
  async #inTime(promise) {
    const late = () => this._lose(`nothing came for ${this.#silence} ms`);
    const timer = setTimeout(late, Math.min(this.#silence, LONGEST_TIMER));
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** A block as an event with its number; null where it has come before. */
  #event({ lastEventId, id, event, data }, at) {
    const [, stream, digits] = OUR_ID.exec(id ?? "") ?? [];
    if (stream && !this.#home && this.#init.method !== "GET") this.#settle(stream, this.#url, null); // a lost header
    const newest = Math.max(this.#position, this.seq); // of all that came: the loop may not have had it yet
    const made = new StreamEvent({ id: lastEventId, seq: newest, event, data, at });
    if (stream && stream !== this.stream) return made; // the rest of an older one
    if (event === "stream-gap" && id === undefined) {
      made.seq = this.#position = Math.max(newest, this._skip(made.json));
      return made;
    }
    const seq = stream ? Number(digits) : this.#position + 1; // without ids of ours we count, as the sidecar does
    this.#position = Math.max(this.#position, seq);
    if (seq <= newest) return null;
    made.seq = seq;
    return made;
  }

  /** The response that goes on where one ended; null where the stream is over. Throws StreamError. */
  async #next(clean) {
    const { response, end } = this.#canFollow(clean) ? await this.#follow(clean) : this.#judge(clean);
    if (response) return response;
    if (end && !this.#feed) return this._conclude(end);
    this.#home = null;
    this._hurried = false;
    return this._persist(() => this.#ask());
  }

  /** Whether the stream goes on at its own address. A feed begun anew may first bring the rest of the old stream. */
  #canFollow(clean) {
    const [, stream = this.stream] = OUR_ID.exec(this.#lastEventId) ?? [];
    return this.#home && (this.#recorded || clean) && (stream === this.stream || !this.#feed);
  }

  /** Without such an address: its `end`, or nothing where the request may be sent again. Throws StreamError. */
  #judge(clean) {
    const { method, headers } = this.#init;
    if (clean && !(method === "GET" && this.#comeAgain)) return { end: { reason: "closed" } };
    const placed = this.#lastEventId && this.#lastEventId !== headers.get("Last-Event-ID"); // the server gave ids
    if (method === "GET" && (this.#feed || placed || this.seq === 0)) return {};
    throw this._error("broken", `the connection broke behind event ${this.seq}, and the stream cannot be resumed`);
  }

  /** The rest of the stream from its own address, as `response`; or its `end`. Throws StreamError. */
  #follow(clean) {
    let looksWhole = clean && !this.#comeAgain;
    let doubtful = false;
    return this._persist(async () => {
      try {
        const end = looksWhole && (await this.#verdict(doubtful));
        if (end) return { end };
        if (looksWhole) this._tell("drop", { after: this.seq, cause: "the connection ended before the stream" });
        looksWhole = false;
        const response = await this.#resume();
        return response.status === 204 ? { end: (await this.#verdict()) ?? { reason: "closed" } } : { response };
      } catch (error) {
        doubtful = true; // a sidecar that went away may be why it ended
        if (this.#feed && GONE.includes(error.status)) return { end: { reason: error.code } };
        throw error;
      }
    }, looksWhole);
  }

  /** How the stream ended, by its state; null while it runs or holds more. Throws StreamError. */
  async #verdict(doubtful = false) {
    const response = await this.#inTime(this.#send(`${this.#home}/state`, this.#again));
    if (!isJson(response) && !isEventStream(response)) {
      const error = await this.#refusal(response);
      if (error.recoverable || doubtful) throw error;
      return { reason: "closed" }; // nobody remembers more than that it ended in good order
    }
    // An edge without its sidecar tells whoever takes streams to come again, by a stream of nothing but `retry`.
    const state = await this.#inTime(response.json()).catch(() => null);
    if (!state) throw this._error("unreachable", "the stream's state did not come", { recoverable: true });
    return state.state === "finished" && state.last <= this.seq ? state : null;
  }

  async _cancel() {
    if (!this.#home) return {};
    const signal = AbortSignal.timeout(CANCEL_PATIENCE);
    const init = { ...this.#again, method: "POST", keepalive: true, signal }; // it leaves even if the page does
    const response = await this.#fetch(`${this.#home}/cancel`, init);
    if (response.ok) return response.json();
    if (GONE.includes(response.status)) return {};
    throw new Error(`HTTP ${response.status}`);
  }

  _lose(cause) {
    this.#lost = cause;
    this.#line.abort();
  }

  _hangUp() {
    this.#line.abort();
  }
}

/** One WebSocket, as something to take frames from. */
class Line {
  /** Why it is over: `{ code, reason }`; null while it is not. What came before can still be taken. */
  closed = null;
  /** Resolves with the frame that ends a stream, or null where the line was over before. */
  last;

  #socket;
  #frames = [];
  #untaken = 0;
  #quiet = 0; // halves of the silence since something came
  #watch;
  #wake = null; // tells whoever takes
  #settle; // resolves `last`

  constructor(socket, hello, silence) {
    this.#socket = socket;
    this.last = new Promise((resolve) => (this.#settle = resolve));
    socket.onopen = () => this.say(hello);
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#over(code, reason);
    socket.onerror = () => {}; // a close follows, which says as much
    if (silence < Infinity) this.#watch = setInterval(() => this.#listen(silence), silence / 2);
  }

  /** Sends a message, where the socket is open; returns whether it is. */
  say(message) {
    const open = this.#socket.readyState === 1 && !this.closed;
    if (open) this.#socket.send(JSON.stringify(message));
    return open;
  }

  /** The next frame; null where there is none and will be none. */
  async take() {
    while (this.#frames.length === 0 && !this.closed) await new Promise((resolve) => (this.#wake = resolve));
    const frame = this.#frames.shift() ?? null;
    this.#untaken -= frame?.size ?? 0;
    return frame;
  }

  close(reason = "closed here") {
    if (this.#socket.readyState < 2) this.#socket.close(1000);
    this.#over(0, reason);
  }

  /** Lets nobody wait for frames any more, while the last one is still waited for. */
  rouse() {
    this.#frames = [];
    this.closed ??= { code: 0, reason: "left" };
    this.#wake?.();
  }

  #receive(data) {
    this.#quiet = 0;
    const frame = parsed(data) ?? { type: "error", code: "bad-frame", message: "what came is not the bridge's JSON" };
    if (frame.type === "end" || frame.type === "error") this.#settle(frame);
    if (frame.type === "pong" || this.closed) return;
    const size = data.length ?? 0;
    this.#frames.push({ ...frame, size, at: performance.now() });
    this.#untaken += size;
    this.#wake?.();
    if (this.#untaken > MAX_UNTAKEN) this.close("more came than was taken");
  }

  #listen(silence) {
    this.#quiet += 1;
    if (this.#quiet > 1) this.close(`nothing came for ${silence} ms`);
    else this.say({ type: "ping" });
  }

  #over(code, reason) {
    clearInterval(this.#watch);
    this.closed ??= { code, reason: reason || `the WebSocket was closed with ${code}` };
    this.#settle(null);
    this.#wake?.();
  }
}

/** A stream over a WebSocket of its own. */
class SocketAnswer extends Answer {
  #dial;
  #line = null;

  /** @param {import("./client.js").SocketOptions} options */
  constructor(url, options = {}) {
    const { body, protocols = [], token, WebSocket = globalThis.WebSocket, silence = 60_000, ...rest } = options;
    super(rest);
    const address = locate(url);
    address.protocol = address.protocol.replace("http", "ws");
    const offered = [SUBPROTOCOL, ...(token ? [`bearer.${token}`] : []), ...protocols];
    this.#dial = (hello) => {
      // An edge before several sidecars finds by it the one that holds the stream: it reads no messages.
      if (this.stream) address.searchParams.set("last_event_id", `${this.stream}.${this.seq}`);
      return new Line(new WebSocket(address, offered), hello, silence);
    };
    const { stream, after = 0 } = rest;
    this._begin(() => {
      if (stream) return this._persist(() => this.#attach({ type: "resume", stream, after }), true);
      return this.#attach({ type: "start", body: typeof body === "string" ? JSON.parse(body) : body });
    });
  }

  async *_batches() {
    await this._first;
    for (;;) {
      const frame = await this.#line.take();
      this._checkGoing();
      if (frame === null) await this.#reattach();
      else if (frame.type === "event") yield this.#events(frame);
      else if (frame.type === "error") throw this.#told(frame);
      else if (frame.type === "end") return this._conclude({ reason: frame.reason, message: frame.message });
    }
  }

  /** Connects, says hello, and waits for the stream to open. Throws StreamError. */
  async #attach(hello) {
    const line = (this.#line = this.#dial(hello));
    const frame = await line.take();
    this._checkGoing();
    if (frame === null) throw this.#lost();
    if (frame.type === "error") throw this.#told(frame);
    if (frame.stream === null) {
      const { data } = (await line.take()) ?? {};
      const facts = { status: frame.status, body: textOf(data) };
      throw this._error("not-a-stream", "the answer is no event stream", facts);
    }
    this.stream = frame.stream;
    this.seq = frame.resumed_from ?? 0;
    this._connected({ stream: frame.stream, status: frame.status, headers: null });
  }

  async #reattach() {
    const lost = this.#lost();
    this._tell("drop", { after: this.seq, cause: lost.message });
    if (!lost.recoverable) throw lost;
    await this._persist(() => this.#attach({ type: "resume", stream: this.stream, after: this.seq }));
  }

  /** The error of a line that is over. */
  #lost() {
    const { code, reason } = this.#line.closed;
    if (FINAL_CODES.includes(code)) return this._error(`closed-${code}`, reason);
    return this._error("unreachable", reason, { recoverable: true });
  }

  /** The error that a frame tells of. */
  #told({ code, message, status, body, recoverable = false }) {
    this.#line.close();
    return this._error(code, message, { status, body: textOf(body), recoverable });
  }

  /** What an event's frame brings: nothing, where it has come before. */
  #events({ id, upstream_id, event, data, at, size }) {
    const seq = Number(id.slice(id.lastIndexOf(".") + 1));
    const fresh = seq > this.seq;
    this._progress();
    this._tell("read", { bytes: size, events: Number(fresh) });
    if (!fresh) return [];
    if (event === "stream-gap") this._skip(data);
    return [new StreamEvent({ id: upstream_id ?? id, seq, event, data: textOf(data), at })];
  }

  /** Says it on the line, or on one that is opened for it. */
  async _cancel() {
    const { stream } = this;
    const heard = this.#line?.say({ type: "cancel" });
    if (!heard && !stream) return {}; // nothing was asked for yet, and nothing will be
    const line = heard ? this.#line : this.#dial({ type: "cancel", stream });
    if (heard) line.rouse();
    const last = await within(CANCEL_PATIENCE, line.last).finally(() => line.close());
    if (last === null) throw new Error(line.closed.reason);
    return last.type === "end" ? { reason: last.reason, message: last.message } : {}; // an error: it runs no more
  }

  _lose(cause) {
    this.#line.close(cause);
  }

  _hangUp() {
    if (!this.#line?.closed) this.#line?.close();
  }
}

/** An address, as seen from where the page stands. */
function locate(url) {
  return new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
}

function pathOf(stream) {
  return `_streams/${encodeURIComponent(stream)}`;
}

/** Where a stream is read again, unless its answer says otherwise. */
function homeOf(stream, url) {
  return new URL(`/${pathOf(stream)}`, url);
}

/** A stream's links, `resume` and `cancel`, where they lead to this stream at this origin. */
function linksOf(link, stream, base) {
  const links = {};
  for (const [, target, rel] of (link ?? "").matchAll(/<([^>]*)>\s*;\s*rel="?(resume|cancel)\b/g)) {
    const url = new URL(target, base);
    const path = `/${pathOf(stream)}${rel === "cancel" ? "/cancel" : ""}`;
    if (url.origin === new URL(base).origin && url.pathname.endsWith(path)) links[rel] = url;
  }
  return links;
}

/** A request's headers, without those that tell of its body or of a place in a stream. */
function withoutBody(headers) {
  return new Headers([...headers].filter(([name]) => !/^(content-.*|last-event-id|idempotency-key)$/.test(name)));
}

/** Whether a body is an object or an array of the caller's, which leaves as JSON. */
function isPlain(body) {
  if (typeof body !== "object" || body === null) return false;
  return Array.isArray(body) || [Object.prototype, null].includes(Object.getPrototypeOf(body));
}

function isEventStream({ status, headers }) {
  return status === 200 && /^text\/event-stream\s*(;|$)/i.test(headers.get("Content-Type") ?? "");
}

function isJson({ status, headers }) {
  return status === 200 && /^application\/json\b/i.test(headers.get("Content-Type") ?? "");
}

/** What `Retry-After` asks for, in ms; undefined where it asks for nothing. */
function retryAfter(headers) {
  const value = headers.get("Retry-After") ?? "";
  const wait = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return wait > 0 ? wait : undefined;
}

/** What JSON says; undefined where it is none. */
function parsed(json) {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

function textOf(value) {
  return value === undefined || typeof value === "string" ? value : JSON.stringify(value);
}

/** The promise, or its failure after so many ms. */
function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Resolves when the next frame is drawn; where none is, a little later. */
function nextFrame() {
  return new Promise((resolve) => {
    const draws = typeof requestAnimationFrame === "function";
    const timer = setTimeout(done, draws ? HIDDEN_FRAME : FRAME);
    const drawn = draws && requestAnimationFrame(done);
    function done() {
      clearTimeout(timer);
      if (draws) cancelAnimationFrame(drawn);
      resolve(null);
    }
  });
}

/**
 * Reads an event stream over HTTP. The request leaves at once; `opened` and the loop tell how it went.
 *
 * Besides its own, it takes the options of fetch, and keeps credentials, mode and headers for resumes. A body that is
 * an object leaves as JSON, by POST. With `stream` (and `after`) it follows a stream that exists, and asks for nothing
 * new. To leave the loop, or to abort `signal`, closes the connection; only `cancel()` stops the stream.
 */
export function openStream(url, options) {
  return new StreamAnswer(url, options);
}

/** Reads the same over a route with `websocket: bridge`: `body` starts a stream, `stream` and `after` follow one. */
export function openSocket(url, options) {
  return new SocketAnswer(url, options);
}

/** Bundles events: yields what has come as an array, once an animation frame, or by timer where no frames are drawn. */
export async function* perFrame(events) {
  const iterator = events[Symbol.asyncIterator]();
  const pull = () => {
    const next = iterator.next();
    return { next, settled: next.catch(() => null) };
  };
  try {
    for (let pulled = pull(), first; !(first = await pulled.next).done; ) {
      const batch = [first.value];
      const frame = nextFrame();
      pulled = pull();
      while (batch.length < FULL_BATCH) {
        const more = await Promise.race([pulled.settled, frame]);
        if (!more || more.done) break;
        batch.push(more.value);
        pulled = pull();
      }
      if (!globalThis.document?.hidden) await frame;
      yield batch;
    }
  } finally {
    await iterator.return?.();
  }
}
