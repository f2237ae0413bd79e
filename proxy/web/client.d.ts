/** Event streams that outlive their connections. docs/client.md is the manual. */

/** One event of a stream. */
export interface StreamEvent<T = any> {
  /** What an EventSource would call `lastEventId`: the sidecar's `<stream>.<seq>`, or the app's own id. */
  readonly id: string;
  /** The event's number in its stream, from 1, whoever writes the ids. */
  readonly seq: number;
  /** Its name; `message` where it has none. */
  readonly event: string;
  /** Its data as it came. Over a WebSocket, JSON is written anew. */
  readonly data: string;
  /** Its data parsed, when first asked for; undefined where the data is no JSON, such as `[DONE]`. */
  readonly json: T | undefined;
  /** When it was complete, as `performance.now()` tells it. */
  readonly at: number;
}

/**
 * `connecting` until the first answer, `open` while events flow, `waiting` from a lost connection to the next one,
 * `closed` after the end.
 */
export type State = "connecting" | "open" | "waiting" | "closed";

/**
 * How a stream ended. `reason` is the sidecar's (`complete`, `cancelled`, `truncated`, …), or: `closed`, a connection
 * ended in good order and nobody can say more; `left`, the loop was left; `aborted`, by `signal`; or an error's code.
 */
export interface End {
  reason: string;
  message?: string;
  /** Over HTTP also what else `/_streams/ID/state` says. */
  [fact: string]: unknown;
}

/** The first answer. */
export interface Head {
  /** The stream's id; null where it does not come through a sidecar. */
  readonly stream: string | null;
  readonly status: number;
  /** Null over a WebSocket. */
  readonly headers: Headers | null;
}

/** What `observe` is told; `at` is `performance.now()`. */
export type Observation =
  | { type: "state"; at: number; state: State }
  | { type: "read"; at: number; bytes: number; events: number }
  /** A comment, or "" for a bare empty line. */
  | { type: "heartbeat"; at: number; comment: string }
  /** A connection was lost behind event `after`. */
  | { type: "drop"; at: number; after: number; cause: string }
  /** The next one is there, at this attempt. */
  | { type: "resume"; at: number; after: number; attempt: number }
  /** The log no longer holds these events. */
  | { type: "gap"; at: number; from?: number; to?: number | null }
  | { type: "end"; at: number; reason: string; message?: string };

/** A stream that is being read. It can be iterated once. */
export interface Answer<T = any> extends AsyncIterable<StreamEvent<T>> {
  /** Resolves with the first answer. Rejects with a StreamError where it is no stream. */
  readonly opened: Promise<Head>;
  /** The stream's id, once it is known. */
  readonly stream: string | null;
  /**
   * The number of the event that was handed on last. `{ stream, after: seq }` goes on behind it, in another page too.
   * `perFrame` takes events ahead of its loop: there, go by the `seq` of the last event of the bundle.
   */
  readonly seq: number;
  readonly state: State;
  /** Null until it has ended. */
  readonly end: End | null;
  /**
   * Stops the stream itself, for all its readers, also when this one has left or given up. The iteration ends at once;
   * resolves with the stream's end when the sidecar has confirmed it. What a loop has thrown stays in `end`.
   */
  cancel(): Promise<End>;
  /** Loses the connection now, or an attempt at the next one, as a network would, and resumes. */
  drop(): void;
}

export interface Retry {
  /** Ms before the first new attempt, until the stream says `retry` itself; 1000. */
  delay?: number;
  /** Ms up to which the wait doubles; 30,000. */
  max?: number;
  /** Attempts without anything coming, after which it is given up; 20, on feeds without end. */
  attempts?: number;
}

interface Options {
  /** Follow this stream, rather than begin one. */
  stream?: string;
  /** With `stream`: behind event n, or `now`; from the first one unless said. */
  after?: number | "now";
  /** Closes the connection; the stream itself goes on for its `linger`. */
  signal?: AbortSignal;
  retry?: Retry;
  /** A connection that can be resumed counts as lost after so many ms without a byte, or an answer; 60,000. */
  silence?: number;
  observe?(observation: Observation): void;
}

export interface StreamOptions extends Options, Omit<RequestInit, "body" | "signal"> {
  /** As for fetch; an object or array is sent as JSON. With a body, the method is POST unless named. */
  body?: BodyInit | object | null;
  /** Go on as an EventSource does: where the stream is over or forgotten, ask for it anew. GET only. */
  feed?: boolean;
  /** With `stream`: where `_streams/` lies; the root of the origin unless said. */
  base?: string | URL;
  /** In place of the global one. */
  fetch?: typeof globalThis.fetch;
}

export interface SocketOptions extends Options {
  /** The request's body: a value, or a text of JSON. */
  body?: unknown;
  /** Subprotocols, besides `sse-sidecar.v1`. */
  protocols?: string[];
  /** A bearer token, which goes as the subprotocol `bearer.<token>`. */
  token?: string;
  /** In place of the global one. */
  WebSocket?: new (url: any, protocols?: any) => any;
}

export function openStream<T = any>(url: string | URL, options?: StreamOptions): Answer<T>;
/** Follows a stream by its id alone. */
export function openStream<T = any>(url: null, options: StreamOptions & { stream: string }): Answer<T>;

export function openSocket<T = any>(url: string | URL, options?: SocketOptions): Answer<T>;

/** Bundles events: what has come, as an array, at most once an animation frame; by timer where no frames are drawn. */
export function perFrame<E>(events: AsyncIterable<E>): AsyncGenerator<E[], void, void>;

export interface StreamErrorFacts {
  status?: number;
  body?: string;
  stream?: string | null;
  seq?: number;
  recoverable?: boolean;
  retryAfter?: number;
  cause?: unknown;
}

/** Why there is no stream, or not all of it. */
export class StreamError extends Error {
  constructor(code: string, message: string, facts?: StreamErrorFacts);
  /** `status`, `not-a-stream`, `unreachable`, `broken`, `cancel-failed`, `closed-<code>`; a sidecar's kind; a stream's end. */
  readonly code: string;
  /** What HTTP said, and the body of that answer. */
  readonly status?: number;
  readonly body?: string;
  /** The stream, and the number of the event that was handed on last. */
  readonly stream?: string | null;
  readonly seq?: number;
  /** Whether the same may succeed a little later, and after how many ms. */
  readonly recoverable: boolean;
  readonly retryAfter?: number;
}

/** A block as it was parsed: `lastEventId` as EventSource has it, `id` the one that stands in the block itself. */
export interface ParsedEvent {
  lastEventId: string;
  id?: string;
  event: string;
  data: string;
}

/** The parser alone: text/event-stream as the WHATWG HTML standard says, from text in pieces. */
export class EventParser {
  constructor(lastEventId?: string, onComment?: (comment: string) => void);
  feed(text: string): ParsedEvent[];
  readonly lastEventId: string;
  /** The newest `retry`, in ms. */
  readonly retry: number | null;
}
