/**
 * The events of `emit: unified`, version 1: the `data` of each, over SSE and over a WebSocket's `event` frames.
 *
 * A stream is one `start`, any number of the others, and at its end one `done`, or one `error` without `tool`.
 * Later versions only add: pass over types and fields that you do not know.
 */
export type UnifiedEvent =
  | Start
  | TextDelta
  | Thinking
  | ToolStart
  | ToolDelta
  | ToolCall
  | ToolResult
  | Citation
  | File
  | Raw
  | StreamError
  | Done;

/** Why an answer ended; `other` where the provider's own word means none of the others. */
export type FinishReason = "stop" | "length" | "tool_calls" | "content_filter" | "other";

/** Tokens; what the provider does not tell is left out. Input counts cached ones, output the reasoning. */
export interface Usage {
  input_tokens?: number;
  output_tokens?: number;
  cached_input_tokens?: number;
  cache_write_input_tokens?: number;
  reasoning_tokens?: number;
}

export interface Start {
  type: "start";
  version: 1;
  /** The provider's name for the answer. */
  id?: string;
  model?: string;
  /** Seconds of the epoch. */
  created?: number;
}

export interface TextDelta {
  type: "text_delta";
  content: string;
  /** It is a piece of what the model says in place of an answer. */
  refusal?: true;
  /** The provider's count of its content blocks; left out for the first. */
  block?: number;
  /** Which of several answers; left out for the first. */
  choice?: number;
}

export interface Thinking {
  type: "thinking";
  content: string;
  /** Proves to the provider in a later turn that it wrote this block's thinking. */
  signature?: string;
  /** Reasoning that only the provider can read. */
  redacted?: string;
  block?: number;
  choice?: number;
}

export interface ToolStart {
  type: "tool_start";
  /** Counts the calls of one answer from 0. */
  index: number;
  id: string;
  name: string;
  /** The provider runs this tool itself, and tells its result. */
  executed?: true;
  choice?: number;
}

export interface ToolDelta {
  type: "tool_delta";
  index: number;
  id: string;
  /** A fragment of a JSON text, cut anywhere: to be shown, not to be parsed. */
  arguments: string;
  choice?: number;
}

/** A tool call: once, complete, its arguments parsed. */
export interface ToolCall {
  type: "tool_call";
  index: number;
  id: string;
  name: string;
  /** Nearly always an object; `{}` where the call has none. */
  arguments: unknown;
  executed?: true;
  choice?: number;
}

/** What a tool returned that the provider ran itself. */
export interface ToolResult {
  type: "tool_result";
  id: string;
  name: string;
  output: unknown;
  failed?: true;
  choice?: number;
}

/** Where a piece of the answer comes from. */
export interface Citation {
  type: "citation";
  url?: string;
  title?: string;
  /** The words that are cited. */
  text?: string;
  document?: string;
  /** The place in the answer's text, in characters. */
  start?: number;
  end?: number;
  /** The provider's own object. */
  source?: unknown;
  block?: number;
  choice?: number;
}

/** A file that the model made. */
export interface File {
  type: "file";
  media_type: string;
  /** Base64. */
  data?: string;
  url?: string;
  choice?: number;
}

/** An event of the provider's that has no other place; only with `raw: true`. */
export interface Raw {
  type: "raw";
  event: string;
  /** Parsed where it is JSON, else the text. */
  data: unknown;
}

/** With `tool`: that call cannot be made, and the stream goes on. Without: the last event. */
export interface StreamError {
  type: "error";
  message: string;
  /** The provider's own word, or one of the sidecar's (`truncated`, `cancelled`, …). */
  code: string;
  /** Asking again may help; with `tool`, the stream goes on. */
  recoverable: boolean;
  tool?: { index: number; id: string; name: string; arguments: string };
  usage?: Usage;
  choice?: number;
}

/** The answer is whole. */
export interface Done {
  type: "done";
  finish_reason: FinishReason;
  /** The provider's own word. */
  native_finish_reason?: string;
  /** One for each answer, where there are several. */
  choices?: { choice: number; finish_reason: FinishReason; native_finish_reason: string }[];
  usage: Usage;
  metrics: {
    total_ms: number;
    /** From the request to the first token. */
    ttft_ms?: number;
    /** From the first token to the last. */
    tokens_per_second?: number;
  };
}
