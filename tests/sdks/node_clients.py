"""The SDKs for Node, all in one process; ``node/sdks.mjs`` tells the language that it speaks."""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass
from typing import Any, Self

from tests.sdks.clients import CHAT, GEMINI, MESSAGES, RESPONSES, Api, Call, Outcome
from tests.support.node import SDKS, node_22

#: Seconds that one call, or the start of Node with all its packages, may take on a slow machine.
PATIENCE = 60.0


class NodeError(Exception):
    """What a call raised: ``names`` are its class's and those of the classes above."""

    def __init__(self, names: list[str], message: str) -> None:
        super().__init__(message)
        self.names = names


@dataclass(frozen=True, slots=True)
class NodeSdk:
    """One way to read a stream in Node; ``raises`` names what it raises when a stream breaks off."""

    packages: tuple[str, ...]
    api: Api
    raises: str

    @property
    def dialect(self) -> str:
        """The dialect that the sidecar goes by."""
        return self.api.dialect

    def raised(self, error: Exception) -> bool:
        """Whether it is the SDK that raised this, because a stream broke off."""
        return isinstance(error, NodeError) and self.raises in error.names


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What a call led to: text, a tool's name and arguments, tokens in and out, and how it ended."""

    text: str
    tool: tuple[str, Any] | None
    usage: tuple[int, int] | None
    error: NodeError | None

    @classmethod
    def read(cls, told: dict[str, Any]) -> Self:
        """Read what the process told."""
        tool, usage, error = told["tool"], told["usage"], told["error"]
        return cls(
            told["text"],
            None if tool is None else tuple(tool),
            None if usage is None else tuple(usage),
            None if error is None else NodeError(**error),
        )


class Node:
    """The process, once it is started; it plays any number of calls at once."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[NodeAnswer]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_failure: object) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    async def start(self) -> None:
        """Start it, unless it runs, and wait until it has loaded its packages."""
        if self._process is not None:
            return
        self._process = await asyncio.create_subprocess_exec(
            *(str(node_22()), "sdks.mjs"),
            cwd=SDKS,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await self._process.stdout.readline() == b"ready\n"
        self._reading = asyncio.create_task(self._read(self._process.stdout), name="Node's SDKs")

    async def ask(self, way: str, call: Call, *, tool: bool = False) -> NodeAnswer:
        """Make one call, which asks for text or for a tool, and wait for its end."""
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._numbers)
        answer: asyncio.Future[NodeAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        order = {"number": number, "way": way, "base": call.base, "wrong": call.wrong, "tool": tool}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            return await answer

    async def listen(self, way: str, call: Call) -> Outcome:
        """Read a stream to its end, good or bad."""
        answer = await self.ask(way, call)
        return Outcome(answer.text, answer.error)

    async def _read(self, tidings: asyncio.StreamReader) -> None:
        async for line in tidings:
            told = json.loads(line)
            self._waiting.pop(told["number"]).set_result(NodeAnswer.read(told))
        for lost in self._waiting.values():
            lost.set_exception(AssertionError("Node ended before it answered"))


NODE_SDKS = {
    "openai chat": NodeSdk(("openai",), CHAT, "APIError"),
    "openai chat, helper": NodeSdk(("openai",), CHAT, "APIError"),
    "openai responses": NodeSdk(("openai",), RESPONSES, "APIError"),
    "openai responses, helper": NodeSdk(("openai",), RESPONSES, "APIError"),
    "@anthropic-ai/sdk": NodeSdk(("@anthropic-ai/sdk",), MESSAGES, "APIError"),
    "@anthropic-ai/sdk, helper": NodeSdk(("@anthropic-ai/sdk",), MESSAGES, "APIError"),
    "@google/genai": NodeSdk(("@google/genai",), GEMINI, "ApiError"),
    "ai, @ai-sdk/openai-compatible": NodeSdk(("ai", "@ai-sdk/openai-compatible"), CHAT, "AISDKError"),
    "ai, @ai-sdk/openai chat": NodeSdk(("ai", "@ai-sdk/openai"), CHAT, "AISDKError"),
    "ai, @ai-sdk/openai responses": NodeSdk(("ai", "@ai-sdk/openai"), RESPONSES, "AISDKError"),
    "ai, @ai-sdk/anthropic": NodeSdk(("ai", "@ai-sdk/anthropic"), MESSAGES, "AISDKError"),
    "ai, @ai-sdk/google": NodeSdk(("ai", "@ai-sdk/google"), GEMINI, "AISDKError"),
}
