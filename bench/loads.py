"""The loads: what the contestants are asked to carry, and for how long."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

#: Where an OpenAI SDK would ask; the upstream goes by the query.
PATH = "/v1/chat/completions"

#: Where an OpenAI SDK would open a WebSocket.
SOCKET_PATH = "/v1/realtime"

#: What an OpenAI SDK would ask, and Anthropic's too.
BODY = (
    '{"model":"bench","stream":true,"max_tokens":4096,'
    '"messages":[{"role":"user","content":"Tell me about streams."}]}'
)

#: One token of a chat completion, as most providers send it, is about so long. In bytes.
EVENT_BYTES = 220

#: 40 ms of speech in 16 bits at 24 kHz, as audio APIs send it.
AUDIO_BYTES = 1920

#: Events in a stream that is meant to outlast its measurement.
ENDLESS = 10_000_000

#: Streams are opened at this rate. Where a contestant cannot keep up with it, its backlog fills, and
#: connections fail; none should that opens a stream in half a millisecond.
RAMP_PER_SECOND = 1_000

#: Streams of a quick run, at most.
QUICK_STREAMS = 1_000

#: Loads that a quick run leaves out: others are much like them.
NOT_QUICK = ("steady-400x100", "large", "bridge-1000x20")

EVERYBODY = ("direct", "nginx", "haproxy", "textbook", "ours-bare", "ours-full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(ABC):
    """What all loads have.

    block: Loads of the same block take turns within one round, so that they can be compared.
    contestants: Those that it is meant for, in order.
    messages: Whether the upstream is asked for a WebSocket, and sends its events in binary messages.
    extra: Whether it is there for contestants that do not always take part, and left out without them.
    """

    name: str
    title: str
    block: str = ""
    contestants: Sequence[str] = EVERYBODY
    messages: bool = False
    extra: bool = False

    @property
    @abstractmethod
    def query(self) -> str:
        """What is asked of the upstream."""

    @property
    def target(self) -> str:
        """The request's path and query."""
        return f"{SOCKET_PATH if self.messages else PATH}?{self.query}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady(Load):
    """Streams that are all open before the measurement begins, and that do not end during it.

    rate: Writes per second and stream, each of ``burst`` events; 0: as fast as the contestant takes them.
    size: Of one event, in bytes.
    answered: Whether clients answer each message with one of that size.
    settle: Seconds between the opening of the last stream and the measurement.
    window: Seconds of measurement.
    ends: After so many events a stream ends. (The generator does not ask again.)
    """

    streams: int
    rate: float
    burst: int = 1
    size: int = EVENT_BYTES
    answered: bool = False
    tls: bool = False
    settle: float = 0.5
    window: float = 2.0

    @property
    def query(self) -> str:
        """Streams that do not end."""
        return query(n=ENDLESS, size=self.size, rate=self.rate, burst=self.burst)

    @property
    def saturates(self) -> bool:
        """Whether there is always more to do than can be done."""
        return self.rate == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests(Load):
    """Streams of one event and the end marker, one after another, over connections that are kept.

    warmup: Requests before those that count.
    """

    requests: int
    concurrency: int
    warmup: int

    @property
    def query(self) -> str:
        """Streams of one event."""
        return query(n=1, size=EVENT_BYTES, rate=0, burst=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay(Load):
    """Readers that all read one finished stream again, from its first event to its end."""

    readers: int
    events: int

    @property
    def query(self) -> str:
        """The stream that is then read again."""
        return query(n=self.events, size=EVENT_BYTES, rate=0, burst=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle(Load):
    """WebSockets over which nobody asks for anything.

    settle: Seconds between the opening of the last one and the reading of the memory.
    """

    streams: int
    settle: float = 1.0

    @property
    def query(self) -> str:
        """What nobody asks for."""
        return query(n=1, size=EVENT_BYTES, rate=0, burst=1)


def query(*, n: int, size: int, rate: float, burst: int) -> str:
    """A stream of ``n`` events of ``size`` bytes, ``burst`` of them ``rate`` times a second."""
    return urlencode({"n": n, "size": size, "rate": f"{rate:g}", "burst": burst})


SOME = ("nginx", "textbook", "ours-full")
OURS = ("ours-full",)
BRIDGES = ("nginx", "ours-full", "ours-bridge")
TUNNELS = ("nginx", "ours-passthrough")

#: The block of all loads that need a WebSocket, each beside what it is compared with.
WEBSOCKET = "websocket"

LOADS: tuple[Load, ...] = (
    Steady(
        name="steady-100x100", title="100 streams × 100 events/s",
        contestants=(*EVERYBODY, "ours-unified", "resumable-stream"), streams=100, rate=100, window=3,
    ),
    # What LiteLLM can carry, and the others beside it. It has to catch up first with what came meanwhile.
    Steady(
        name="steady-100x5", title="100 streams × 5 events/s",
        contestants=("direct", *SOME, "ours-unified", "litellm", "litellm-messages"), extra=True,
        streams=100, rate=5, settle=5.0, window=3,
    ),
    Steady(name="steady-1000x20", title="1,000 streams × 20 events/s", streams=1000, rate=20),
    # Events that come one by one find the contestant asleep, and most of their cost is waking it up. Here it
    # hardly sleeps.
    Steady(
        name="steady-400x100", title="400 streams × 100 events/s",
        contestants=("direct", *SOME), streams=400, rate=100,
    ),
    # The window is one period: every stream gets one event in it.
    Steady(name="idle-5000", title="5,000 streams, an event every 5 s", streams=5000, rate=0.2, window=5),
    Steady(name="flat-out", title="20 streams as fast as they go", streams=20, rate=0),
    Steady(name="bursts", title="100 streams × 25 bursts/s of 20 events", streams=100, rate=25, burst=20),
    Steady(name="large", title="100 streams × 50 events/s of 4 KiB", streams=100, rate=50, size=4096),
    Steady(name="tls", title="100 × 100 events/s, TLS upstream", streams=100, rate=100, tls=True),
    # As many events a second over few streams and over many.
    Steady(
        name="open-100", title="100 streams × 90 events/s",
        block="open", contestants=SOME, streams=100, rate=90,
    ),
    Steady(
        name="open-9000", title="9,000 streams × 1 event/s",
        block="open", contestants=SOME, streams=9000, rate=1,
    ),
    Steady(
        name="live", title="live: 100 streams × 100 events/s",
        block="replay", contestants=OURS, streams=100, rate=100,
    ),
    Replay(
        name="replay", title="1,000 readers of a finished log of 2,000 events",
        block="replay", contestants=OURS, readers=1000, events=2000,
    ),
    Requests(
        name="setup", title="streams of one event, 10 at a time",
        contestants=EVERYBODY[1:], requests=3000, concurrency=10, warmup=300,
    ),
    Requests(
        name="lone", title="streams of one event, one at a time",
        requests=2000, concurrency=1, warmup=200,
    ),
    # The same streams: nginx and ours-full carry them as events, the bridge as frames.
    Steady(
        name="bridge-100x100", title="bridge: 100 streams × 100 events/s",
        block=WEBSOCKET, contestants=("direct", *BRIDGES), streams=100, rate=100, window=3,
    ),
    Steady(
        name="bridge-1000x20", title="bridge: 1,000 streams × 20 events/s",
        block=WEBSOCKET, contestants=BRIDGES, streams=1000, rate=20,
    ),
    Steady(
        name="bridge-bursts", title="bridge: 100 streams × 25 bursts/s of 20 events",
        block=WEBSOCKET, contestants=BRIDGES, streams=100, rate=25, burst=20,
    ),
    Steady(
        name="tunnel-100x100", title="pass-through: 100 WebSockets × 100 messages/s",
        block=WEBSOCKET, contestants=("direct", *TUNNELS), messages=True, streams=100, rate=100, window=3,
    ),
    Steady(
        name="tunnel-audio", title="pass-through: 100 WebSockets × 50 messages/s of audio",
        block=WEBSOCKET, contestants=("direct", *TUNNELS), messages=True,
        streams=100, rate=50, size=AUDIO_BYTES,
    ),
    Steady(
        name="tunnel-both-ways", title="pass-through: 100 WebSockets × 50 messages/s and 50 answers/s",
        block=WEBSOCKET, contestants=TUNNELS, messages=True, streams=100, rate=50, answered=True,
    ),
    Idle(
        name="bridge-open", title="bridge: 5,000 connections without a stream",
        block=WEBSOCKET, contestants=("ours-bridge",), streams=5000,
    ),
    Steady(
        name="bridge-idle", title="bridge: 5,000 streams, an event every 5 s",
        block=WEBSOCKET, contestants=("ours-bridge",), streams=5000, rate=0.2, window=5,
    ),
    Steady(
        name="tunnel-idle", title="pass-through: 5,000 WebSockets, a message every 5 s",
        block=WEBSOCKET, contestants=TUNNELS, messages=True, streams=5000, rate=0.2, window=5,
    ),
)  # fmt: skip


def quick(chosen: Iterable[Load]) -> list[Load]:
    """The loads with short windows and fewer streams: for a look, not for a verdict."""
    return [_quick(load) for load in chosen if load.name not in NOT_QUICK]


def _quick(load: Load) -> Load:
    match load:
        case Steady():
            streams = min(load.streams, QUICK_STREAMS)
            rate = load.rate * load.streams / streams  # as many events a second as before
            return replace(load, streams=streams, rate=rate, window=1.0, settle=0.2)
        case Requests():
            return replace(load, requests=load.requests // 5, warmup=load.warmup // 3)
        case Replay():
            return replace(load, readers=load.readers // 5)
        case Idle():
            return replace(load, streams=min(load.streams, QUICK_STREAMS))
    return load
