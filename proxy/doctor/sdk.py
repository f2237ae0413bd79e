"""What OpenAI's own SDK makes of the stream, through its own HTTP client."""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yarl import URL

from proxy.doctor.finding import Figures, Finding, fault, ok, unseen

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionChunk  # an optional extra

PROMPT = "Count from one to forty, in words."

#: Characters of an error that are shown.
ERROR_SHOWN = 300


@dataclass(slots=True)
class Heard:
    """What the SDK gave its caller."""

    chunks: int = 0
    characters: int = 0
    finish_reason: str | None = None
    first_text: float | None = None
    error: str = ""

    def receive(self, chunk: ChatCompletionChunk, after: float) -> None:
        """Take in one chunk that came ``after`` so many seconds."""
        self.chunks += 1
        for choice in chunk.choices or ():
            text = choice.delta.content or ""
            if text and self.first_text is None:
                self.first_text = after
            self.characters += len(text)
            self.finish_reason = choice.finish_reason or self.finish_reason


def completion_body(model: str) -> bytes:
    """The body of a streamed chat completion."""
    messages = [{"role": "user", "content": PROMPT}]
    return json.dumps({"model": model, "messages": messages, "stream": True}).encode()


def judge(heard: Heard) -> Finding:
    """Whether the text arrived whole."""
    figures: Figures = {
        "chunks": heard.chunks,
        "characters": heard.characters,
        "finish_reason": heard.finish_reason,
        "first_text": None if heard.first_text is None else round(heard.first_text, 3),
        "error": heard.error or None,
    }
    said = f"{heard.characters} characters in {heard.chunks} chunks, finish_reason {heard.finish_reason}"
    if heard.error:
        return fault(
            "sdk", f"{said}; raised {heard.error}", "the lines above say where it comes from", **figures
        )
    if heard.finish_reason is None:
        return fault(
            "sdk",
            f"{said}: half an answer, and no error",
            "a sidecar tells such an end as an error",
            **figures,
        )
    return ok("sdk", said, **figures)


async def try_sdk(
    base: URL, model: str, key: str, fields: tuple[tuple[str, str], ...], trust: ssl.SSLContext
) -> Finding:
    """Ask for one stream through the SDK, and read it to its end; ``fields`` are sent too."""
    try:
        import openai
    except ModuleNotFoundError:
        return unseen("sdk", "not installed: pip install 'sse-sidecar[openai]'")
    heard = Heard()
    began = time.perf_counter()
    client = openai.AsyncOpenAI(
        base_url=str(base.with_query(None)),
        api_key=key,
        default_headers=dict(fields),
        default_query=dict(base.query),
        max_retries=0,  # a retry would hide what is looked for
        http_client=openai.DefaultAsyncHttpxClient(verify=trust),
    )
    try:
        async with client:
            stream = await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": PROMPT}], stream=True
            )
            async for chunk in stream:
                heard.receive(chunk, time.perf_counter() - began)
    except Exception as error:  # whatever its caller would have seen: the SDK's, its HTTP client's, JSON's
        heard.error = f"{type(error).__name__}: {' '.join(str(error).split())}"[:ERROR_SHOWN]
    return judge(heard)
