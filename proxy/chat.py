"""A terminal client on OpenAI's own SDK, which can cut its own connection and pick the stream up again.

Nothing in it knows how the sidecar works: it is pointed at a base URL like any other program that uses
the SDK, and what it needs to resume or to cancel stands in the ``Link`` header of the answer.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    # The SDK is an optional extra, and slow to import: only a chat needs it.
    from httpx2 import Response
    from openai import APIStatusError, AsyncOpenAI, AsyncStream
    from openai.types.chat import ChatCompletionChunk

INSTALL = 'chat needs the openai package: pip install "sse-sidecar[openai]"'

NO_RESUME = 'the answer has no Link with rel="resume": is a sidecar in front of the upstream?'

#: Exit statuses; the last one is what a shell reports for a program that Ctrl-C ended.
WHOLE, FAILED, INTERRUPTED = 0, 1, 130

#: Characters of a stream id that are shown: the whole of it would let anyone read the stream.
ID_SHOWN = 6

#: Seconds for the cancel request after Ctrl-C; whoever pressed it wants to leave.
CANCEL_TIMEOUT = 5.0


#: Characters of an error that are shown; a proxy's error page can be long.
ERROR_SHOWN = 300


class ChatError(Exception):
    """The conversation cannot go on; the message names what came and what was expected."""


@dataclass(slots=True)
class Reading:
    """What has been received so far. ``events`` counts blocks with data; times are ``perf_counter``'s."""

    events: int = 0
    tokens: int = 0
    finished: bool = False
    pieces: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    first_token: float = 0.0
    last_token: float = 0.0

    @property
    def text(self) -> str:
        """The text received."""
        return "".join(self.pieces)

    def receive(self, chunk: ChatCompletionChunk) -> str:
        """Count one event, and return the text in it. ChatError when it is no chunk."""
        self.events += 1
        # The SDK builds its models without validation: a field that did not come is not there.
        choices = getattr(chunk, "choices", None)
        if choices is None:
            raise ChatError(f"event {self.events} is no chat completion chunk: it has no choices")
        text = "".join(choice.delta.content or "" for choice in chunk.choices)
        if text:
            self._receive_text(text)
        if chunk.usage is not None:
            self.tokens = chunk.usage.completion_tokens
        self.finished |= any(choice.finish_reason for choice in chunk.choices)
        return text

    def _receive_text(self, text: str) -> None:
        self.last_token = time.perf_counter()
        if not self.pieces:
            self.first_token = self.last_token
        self.pieces.append(text)
        self.tokens += 1

    def figures(self) -> str:
        """Time to the first token, tokens a second between the first and the last, events."""
        figures = [f"{self.tokens} tokens", f"{self.events} events"]
        duration = self.last_token - self.first_token
        if duration > 0:
            figures.insert(0, f"{(self.tokens - 1) / duration:.1f} tokens/s")
        if self.pieces:
            figures.insert(0, f"first token after {self.first_token - self.began:.2f} s")
        return ", ".join(figures)


@dataclass(frozen=True, slots=True)
class Handle:
    """How a stream can be found again: absolute URLs, empty where the answer offers none."""

    stream_id: str
    resume_url: str
    cancel_url: str

    @classmethod
    def of(cls, stream: AsyncStream[ChatCompletionChunk]) -> Handle:
        """Read the handle from the headers of an answer."""
        return cls(
            stream_id=stream.response.headers.get("Stream-Id", ""),
            resume_url=_link(stream.response, "resume"),
            cancel_url=_link(stream.response, "cancel"),
        )

    @property
    def shown(self) -> str:
        """As much of the id as may be shown."""
        return f"{self.stream_id[:ID_SHOWN]}…"


def _link(response: Response, rel: str) -> str:
    target = response.links.get(rel, {}).get("url", "")
    url = response.url.join(target)
    # The key goes along with every request, so a link to another host must not be followed.
    if not target or (url.scheme, url.netloc) != (response.url.scheme, response.url.netloc):
        return ""
    return str(url)


async def chat(
    *,
    base_url: str,
    model: str,
    prompt: str,
    drop_after: int | None,
    api_key: str,
    headers: dict[str, str],
    out: TextIO,
) -> int:
    """Send ``prompt``, write the answer to ``out`` as it comes, then its figures; return the exit status.

    ``base_url`` is what the SDK wants, with its ``/v1``. After ``drop_after`` events the connection is
    cut and the stream resumed, and the joined text is compared with the stream read again from its
    start. Whatever goes wrong is told in one line, status 1. A cancellation (Ctrl-C under
    ``asyncio.run``) is taken as the wish to stop: the stream is cancelled, status 130.
    """
    try:
        from httpx2 import InvalidURL
        from openai import AsyncOpenAI
    except ModuleNotFoundError:
        print(INSTALL, file=out)
        return FAILED
    try:
        # A retry would hide what this client is there to show.
        client = AsyncOpenAI(base_url=base_url, api_key=api_key, default_headers=headers, max_retries=0)
    except InvalidURL as error:
        print(f"{base_url}: {error}", file=out)
        return FAILED
    async with client:
        return await Conversation(client, out).run(model, prompt, drop_after)


class Conversation:
    """One prompt and its answer, over as many connections as it takes."""

    def __init__(self, client: AsyncOpenAI, out: TextIO) -> None:
        self._client = client
        self._out = out
        self._reading = Reading()
        self._handle = Handle("", "", "")

    async def run(self, model: str, prompt: str, drop_after: int | None) -> int:
        """Hold the conversation, and turn whatever ends it early into a line and an exit status."""
        from openai import OpenAIError

        try:
            try:
                return await self._hold(model, prompt, drop_after)
            except asyncio.CancelledError:
                return await self._abandon()
        # ValueError: what came is not UTF-8, or not JSON.
        except (OpenAIError, ChatError, ValueError) as error:
            self._say(self._told(error))
            return FAILED

    async def _hold(self, model: str, prompt: str, drop_after: int | None) -> int:
        stream = await self._client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            stream=True,
            stream_options={"include_usage": True},
        )
        self._handle = Handle.of(stream)
        if drop_after is not None and not self._handle.resume_url:
            raise ChatError(NO_RESUME)
        dropped = await self._show(stream, drop_after)
        if dropped:
            shown = f"resuming stream {self._handle.shown} from {self._reading.events}"
            self._say(f"— dropped after {self._reading.events} events; {shown} —")
            await self._show(await self._reopen(after=self._reading.events))
        if not self._reading.finished:
            raise ChatError(f"the answer ended after {self._reading.events} events without a finish_reason")
        self._say(f"— {self._reading.figures()} —")
        if drop_after is not None and not dropped:
            self._say(f"— nothing was dropped: the answer ended before event {drop_after} —")
        return await self._verify() if dropped else WHOLE

    async def _show(self, stream: AsyncStream[ChatCompletionChunk], drop_after: int | None = None) -> bool:
        """Write the text as it comes; True when the connection was cut on purpose."""
        async with stream:
            async for chunk in stream:
                self._write(self._reading.receive(chunk))
                if self._reading.events == drop_after:
                    return True
        return False

    async def _reopen(self, *, after: int) -> AsyncStream[ChatCompletionChunk]:
        """The same stream again, from the event that follows ``after``."""
        from openai import AsyncStream
        from openai.types.chat import ChatCompletionChunk

        return await self._client.get(
            f"{self._handle.resume_url}?after={after}",
            cast_to=ChatCompletionChunk,
            stream=True,
            stream_cls=AsyncStream[ChatCompletionChunk],
        )

    async def _verify(self) -> int:
        """Compare what was joined from two connections with the whole stream, read once more."""
        again = Reading()
        async with await self._reopen(after=0) as stream:
            async for chunk in stream:
                again.receive(chunk)
        joined, whole = self._reading, again
        if (joined.text, joined.events) == (whole.text, whole.events):
            self._say(f"— gap-free: {joined.events} events, the same text as the stream read again whole —")
            return WHOLE
        position = _first_difference(joined.text, whole.text)
        self._say(
            f"— NOT gap-free: {joined.events} events were joined, the whole stream has {whole.events}; "
            f"the text differs at character {position} —"
        )
        return FAILED

    async def _abandon(self) -> int:
        """Stop the answer where it is made, so that nothing goes on being generated for nobody."""
        received = f"after {self._reading.events} events ({self._reading.tokens} tokens)"
        if task := asyncio.current_task():
            task.uncancel()  # the cancellation is dealt with here
        if not self._handle.cancel_url:
            self._say(f"— stopped {received} by closing the connection —")
            return INTERRUPTED
        hasty = self._client.with_options(timeout=CANCEL_TIMEOUT)
        await hasty.post(self._handle.cancel_url, cast_to=object)
        self._say(
            f"— cancelled stream {self._handle.shown} {received}: "
            "the rest is neither generated nor paid for —"
        )
        return INTERRUPTED

    def _told(self, error: Exception) -> str:
        """The error on one line: the address, and the cause."""
        from openai import APIError, APIStatusError

        url, cause = str(self._client.base_url), str(error) or type(error).__name__
        if isinstance(error, APIStatusError):
            cause = f"HTTP {error.status_code}: {_message(error)}"
        elif isinstance(error, APIError):
            cause = _root_cause(error)
        if isinstance(error, APIError):
            url = str(error.request.url)
        if self._handle.stream_id:
            url = url.replace(self._handle.stream_id, self._handle.shown)
        return f"{url}: {' '.join(cause.split())[:ERROR_SHOWN]}"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _say(self, line: str) -> None:
        """Write a line of its own, below whatever text has been written."""
        self._write(f"\n{line}\n")


def _first_difference(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    shorter = min(len(one), len(other))
    return next((index for index, (left, right) in enumerate(pairs) if left != right), shorter)


def _message(error: APIStatusError) -> str:
    """What the answer's body says, in OpenAI's form or as a problem document (RFC 9457)."""
    match error.body:
        case {"message": str(message)} | {"detail": str(message)}:
            return message
    return error.message


def _root_cause(error: BaseException) -> str:
    """The message at the bottom of a chain of exceptions: there the network says what happened."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
