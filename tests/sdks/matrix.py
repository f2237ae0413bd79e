"""Every SDK under every condition: what is done to its stream, what must come of it, and what came.

A row is an SDK with one way to read (``clients.SDKS``, ``node_clients.NODE_SDKS``), a column a
``Condition``: what the provider does wrong, and which policies the route has. What a cell must show follows
from the two: the text whole, with those of the condition's additions around it that the API takes; or the
words up to the break, and then an exception of the SDK's own.
"""

from __future__ import annotations

import asyncio
import gc
import re
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mistralai.client import errors as mistral_errors

from proxy.demo import expected_text, start_provider
from proxy.demo.voice import FAILURE
from proxy.server.relay import Relay
from proxy.stream.log import Reason
from tests.conftest import eventually, sidecars
from tests.sdks.clients import SDKS, GivenOut, Outcome, Sdk, listen
from tests.sdks.node_clients import NODE_SDKS, Node, NodeError, NodeSdk
from tests.sdks.stage import HEARTBEAT, MIDDLE, Stage, staged

#: Two silences of several heartbeats each: before the first event, and in the middle of the text.
PAUSE_AT = 12
SILENCES = f"first_delay={{silence}}; pause_at={PAUSE_AT}; pause={{silence}}; interval=0.002"

#: How long they are, in seconds, and how long where a busy machine let too few heartbeats into one.
SILENCE, LONG_SILENCE = 0.3, 2.0

#: Heartbeats that must fall into each of them at least; fourteen would fit.
SEVERAL = 2

#: A heartbeat that no stream here lives to see.
NEVER = "15s"


async def close_the_provider(stage: Stage) -> None:
    """Close it once the words of the middle have passed: its connections end without a last chunk."""

    def heard() -> bool:
        return any(record.events == MIDDLE for record in stage.provider.requests)

    await eventually(heard, "the middle of the text")
    await stage.provider.close()


@dataclass(frozen=True, slots=True)
class Condition:
    """What is done to a stream.

    ``wrong`` is asked of the provider, ``policies`` are the route's; ``deed`` is done meanwhile. ``adds`` is
    what the sidecar then adds for an API that takes it: ids, and heartbeats, or an ``early`` answer, which
    shows by them, before each of the blocks ``silent_before``. ``reason`` is how the stream ends, whole or
    not; ``told`` are words that the exception must carry.
    """

    what: str
    wrong: str
    policies: Mapping[str, Any] = field(default_factory=dict)
    adds: frozenset[str] = frozenset()
    silent_before: tuple[int, ...] = ()
    reason: Reason = Reason.COMPLETE
    told: str = ""
    deed: Callable[[Stage], Coroutine[Any, Any, None]] | None = None

    @property
    def whole(self) -> bool:
        """Whether the text must be."""
        return self.reason is Reason.COMPLETE


BARE = {"ids": "never", "heartbeat": NEVER}

CONDITIONS = {
    "plain": Condition("`ids: never`, and no time for a heartbeat", "interval=0.002", BARE),
    "heartbeats": Condition(
        f"`ids: never`, `heartbeat: {HEARTBEAT}`, and two silences of 300 ms",
        SILENCES,
        {"ids": "never"},
        frozenset({"heartbeats"}),
        (0, PAUSE_AT),
    ),
    "ids and heartbeats": Condition(
        f"`ids: auto`, `heartbeat: {HEARTBEAT}`, and the same silences",
        SILENCES,
        {},
        frozenset({"ids", "heartbeats"}),
        (0, PAUSE_AT),
    ),
    "early answer": Condition(
        f"`open_after: 20ms`, `heartbeat: {HEARTBEAT}`, and an upstream that answers after 300 ms",
        "headers_delay={silence}; interval=0.002",
        {"open_after": "20ms"},
        frozenset({"ids", "early"}),
        (0,),
    ),
    "provider's error": Condition(
        "the provider tells an error of its own in mid-stream, in its own shape",
        f"error_at={MIDDLE}; interval=0",
        reason=Reason.UPSTREAM_ERROR,
        told=FAILURE,
    ),
    "upstream dies": Condition(
        "the upstream dies between two events; the sidecar tells it",
        f"hang_at={MIDDLE}; interval=0",
        reason=Reason.TRUNCATED,
        deed=close_the_provider,
    ),
    "cut inside an event": Condition(
        "the connection to the upstream breaks in the middle of an event",
        f"drop_at={MIDDLE}; interval=0",
        reason=Reason.TRUNCATED,
    ),
}

Row = Sdk | NodeSdk

#: All ways to read, those for Node by names of their own.
ROWS: Mapping[str, Row] = {**SDKS, **{f"node: {way}": sdk for way, sdk in NODE_SDKS.items()}}


# What came


@dataclass(frozen=True, slots=True)
class Cell:
    """One SDK under one condition: what its program got, and what passed over its wire.

    ``relay`` is None where the answer passed untouched.
    """

    sdk: Row
    condition: Condition
    outcome: Outcome
    body: bytes
    relay: Relay | None

    @property
    def result(self) -> str:
        """What came of it, in the words of the page."""
        error = self.outcome.error
        if isinstance(error, GivenOut):
            return "error event"
        if error is not None:
            name = error.names[0] if isinstance(error, NodeError) else type(error).__name__
            return f"raises `{name}`"
        if not self.condition.whole or self.outcome.text != expected_text():
            return "**short**"
        if self.condition.adds and not self.sdk.api.adds:
            return "whole, untouched"
        lacking = self.condition.adds - self.sdk.api.adds
        return f"whole, no {' or '.join(sorted(lacking))}" if lacking else "whole"

    @property
    def expected(self) -> frozenset[str]:
        """What of the condition's additions the API takes."""
        return self.condition.adds & self.sdk.api.adds

    @property
    def added(self) -> set[str]:
        """What the wire carried of ``ids``, ``heartbeats`` and an ``early`` answer, each where it must."""
        if self.relay is None:
            return set()
        added = {"ids"} if b"id: " in self.body else set()
        runs = heartbeats(self.body, self.relay.dialect.heartbeat)
        if any(runs) and all(runs[block] >= SEVERAL for block in self.condition.silent_before):
            added.add("early" if "early" in self.condition.adds else "heartbeats")
        return added

    @property
    def hurried(self) -> bool:
        """Whether nothing is wrong but that a busy machine left too few heartbeats in the silences."""
        lacking = self.expected - self.added
        late = bool(lacking) and lacking <= {"heartbeats", "early"} and self.added <= self.expected
        return late and len(list(self._complaints())) == 1

    @property
    def complaint(self) -> str:
        """What is not as it must be; "" where all is."""
        return "; ".join(self._complaints())

    def _complaints(self) -> Iterator[str]:
        if self.condition.whole:
            yield from self._complaints_of_text(expected_text())
            if self.outcome.error is not None:
                yield f"it raised {self.outcome.error!r}"
            yield from self._complaints_of_wire()
        else:
            yield from self._complaints_of_text(expected_text(MIDDLE - self.sdk.api.preamble))
            yield from self._complaints_of_error()
        if self.relay is not None:
            yield from self._complaints_of_log(self.relay)

    def _complaints_of_text(self, expected: str) -> Iterator[str]:
        if self.outcome.text != expected:
            yield f"the text is {self.outcome.text!r}, not {expected!r}"

    def _complaints_of_error(self) -> Iterator[str]:
        error, told = self.outcome.error, self.condition.told
        if error is None:
            yield "a short answer, and no error"
        elif not (self.sdk.raised(error) or (told and isinstance(error, GivenOut))):
            yield f"it raised {error!r}"
        elif told not in words_of(error):
            yield f"its error does not say {told!r}: {words_of(error)}"

    def _complaints_of_log(self, relay: Relay) -> Iterator[str]:
        reason, told = self.condition.reason, self.condition.told
        if told and self.sdk.dialect == "generic":
            reason = Reason.COMPLETE  # what an app calls an error is nobody's business
        if relay.log.terminal is None or relay.log.terminal.reason is not reason:
            yield f"the stream ended with {relay.log.terminal}, not with {reason.value}"
        if told and relay.log.last != MIDDLE + 1:
            yield "the provider's error is not the stream's last word"

    def _complaints_of_wire(self) -> Iterator[str]:
        if self.added != self.expected:
            yield f"added were {sorted(self.added)}, not {sorted(self.expected)}"
        if self.relay is None:
            if any(not line.startswith(b"{") for line in self.body.splitlines()):
                yield f"not all lines are the provider's: {self.body!r}"
        elif self._without_additions() != logged(self.relay):
            yield f"more than that was added: {self.body!r}"

    def _without_additions(self) -> bytes:
        """The body without the heartbeats and the hint when to come again: blocks as they are logged."""
        assert self.relay is not None
        if self.relay.dialect.heartbeat == b"\n":
            return re.sub(rb"\n{2,}", b"\n\n", self.body.lstrip(b"\n"))
        blocks = re.sub(rb"^: ping\n", b"", self.body, flags=re.MULTILINE)
        return blocks.replace(b"retry: 3000\n", b"", 1)


def heartbeats(body: bytes, heartbeat: bytes) -> list[int]:
    """Return how many of them stand before each block, and behind the last."""
    if heartbeat == b"\n":
        first, *others = (len(run) for run in re.split(rb"data: .*", body))
        return [first, *(run - len(b"\n\n") for run in others)]
    runs = (re.match(rb"(?:%b)*" % heartbeat, piece) for piece in body.split(b"\n\n"))
    return [len(run[0]) // len(heartbeat) for run in runs if run]


def logged(relay: Relay) -> bytes:
    """Return the blocks that a stream's log holds."""
    return b"".join(relay.log.after(0, relay.log.max_bytes))


def words_of(error: Exception) -> str:
    """An exception's words. Mistral's keeps what the provider said aside."""
    return f"{error} {error.body}" if isinstance(error, mistral_errors.MistralError) else f"{error}"


# Playing


async def play(name: str, condition: Condition, node: Node, *, fast_path: bool = True) -> Cell:
    """Let the SDK of this row read one stream under a condition; once more where it was ``hurried``."""
    cell = await _play(name, condition, node, fast_path, SILENCE)
    if cell.condition.whole and cell.hurried:
        cell = await _play(name, condition, node, fast_path, LONG_SILENCE)
    return cell


async def _play(name: str, condition: Condition, node: Node, fast_path: bool, silence: float) -> Cell:
    sdk = ROWS[name]
    async with _stage(condition, fast_path) as stage, asyncio.TaskGroup() as group:
        if condition.deed is not None:
            group.create_task(condition.deed(stage), name="the deed")
        call = stage.call(condition.wrong.format(silence=silence))
        if isinstance(sdk, NodeSdk):
            outcome = await node.listen(name.removeprefix("node: "), call)
        else:
            outcome = await listen(sdk, call)
        relay = next(iter(stage.sidecar.hub.store), None)
        return Cell(sdk, condition, outcome, stage.body(), relay)


async def play_row(name: str, node: Node, *, fast_path: bool = True) -> dict[str, Cell]:
    """Let the SDK of this row read under all conditions at once; return its cells by their columns."""
    if isinstance(ROWS[name], NodeSdk):
        await node.start()
    cells = await asyncio.gather(
        *(play(name, condition, node, fast_path=fast_path) for condition in CONDITIONS.values())
    )
    if isinstance(sdk := ROWS[name], NodeSdk) or sdk.litters:
        sweep(cells)
    return dict(zip(CONDITIONS, cells, strict=True))


def sweep(cells: Iterable[Cell]) -> None:
    """Collect what was left behind, of which Python warns later, and in some other test's name.

    Some SDKs leave their connections. Where Node reads, one was left in a few runs while the stage was taken
    down; whose it was is not known.
    """
    for cell in cells:
        if cell.outcome.error is not None:
            cell.outcome.error.with_traceback(None)  # whose frames hold it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@asynccontextmanager
async def _stage(condition: Condition, fast_path: bool) -> AsyncIterator[Stage]:
    provider = await start_provider()
    try:
        async with (
            sidecars(fast_path=fast_path) as start,
            staged(provider, start, **condition.policies) as stage,
        ):
            yield stage
    finally:
        await provider.close()
