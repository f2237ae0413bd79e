"""The settings: what a configuration says once it is read, checked and resolved.

Durations are floats in seconds, sizes ints in bytes. Every struct is frozen and compares by value, so that a
reload can tell what changed. A line ``name: …`` in a docstring describes that field to editors as well.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args
from urllib.parse import urlsplit

from msgspec import UNSET, Struct, UnsetType

from proxy.config import syntax
from proxy.config.form import COMPUTED, Block, Count, Duration, Listing, Size, Table, Text
from proxy.config.template import Additions, Template, TemplateText
from proxy.dialects import DIALECTS

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

SHORTEST: Final = 0.001
"""Least length in seconds of an interval that something waits for: none of them may spin."""

HEARTBEAT_LEAST: Final = 0.01
"""Least heartbeat in seconds: below it a stream is mostly heartbeats."""

DEFAULT_IDLE: Final = 300.0
"""Seconds without an upstream byte after which a stream that is no feed ends."""

Span = Annotated[float, Duration()]
Interval = Annotated[float, Duration(least=SHORTEST)]
IntervalOrOff = Annotated[float | None, Duration(least=SHORTEST, off=True)]
Bytes = Annotated[int, Size(least=1)]
AnyBytes = Annotated[int, Size()]
Name = Annotated[str, Text(syntax.name, syntax.NAME_PATTERN)]
Node = Annotated[str | None, Text(syntax.node, syntax.NODE_PATTERN)]
TokenOrNone = Annotated[str | None, Text(syntax.token, syntax.TOKEN_PATTERN)]
Methods = Annotated[tuple[str, ...], Listing(Text(syntax.method, syntax.TOKEN_PATTERN), least=1)]
File = Annotated[str, Text(syntax.file_path, secret=True)]
Prefix = Annotated[str, Text(syntax.path_prefix)]
Listen = Annotated[str, Text(syntax.listen, syntax.LISTEN_PATTERN)]
# A URL may carry a password or a key in its query by mistake: no message shows one.
URL: Final = Text(syntax.upstream_url, syntax.URL_PATTERN, secret=True)
Peer = Annotated[str, Text(syntax.trusted_peer)]
Hosts = Annotated[tuple[str, ...], Listing(Text(syntax.host), least=1)]
Origins = Annotated[tuple[str, ...], Listing(Text(syntax.origin, syntax.ORIGIN_PATTERN))]
Headers = Annotated[
    dict[str, str], Table(Text(syntax.header_value, secret=True), check=syntax.header_name, secret=True)
]


class Tls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate to serve TLS with.

    cert: Path of the certificate chain, PEM.
    key: Path of the private key, PEM.
    """

    cert: File
    key: File


class Admin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The listener for operators: /metrics, /healthz, /readyz, /streams. Never expose it.

    listen: host:port, [v6]:port or unix:/path.
    hosts: Names under which operators call /streams, besides addresses, local names and the top-level hosts.
    """

    listen: Listen = "127.0.0.1:9090"
    hosts: Hosts | None = None


class MemoryStore(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logs in this process's memory.

    max_bytes: All logs together; finished ones are evicted oldest first, then new streams go unrecorded.
    tombstones: Ended streams that are remembered as expired (410) rather than unknown (404).
    tombstone_keep: How long they are remembered.
    """

    max_bytes: Bytes = 256 * MIB
    tombstones: Annotated[int, Count(least=0)] = 100_000
    tombstone_keep: Span = 86_400.0


class Store(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where streams' logs live.

    memory: In this process; they are gone after a restart.
    """

    memory: MemoryStore = MemoryStore()


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what clients can make the whole process hold.

    streams: Streams at once.
    readers: Readers at once.
    readers_per_stream: Readers of one stream.
    readers_per_caller: Readers of one caller, told by its address.
    websockets: WebSocket connections at once, those that pass through included.
    websockets_per_caller: Those of one caller.
    max_headers: A request's header section.
    buffered_body: A request body that a policy must see whole, such as one with an Idempotency-Key.
    """

    streams: int = 10_000
    readers: int = 20_000
    readers_per_stream: int = 1_000
    readers_per_caller: Annotated[int | None, Count(off=True)] = None
    websockets: int = 10_000
    websockets_per_caller: Annotated[int | None, Count(off=True)] = None
    max_headers: Bytes = 32 * KIB
    buffered_body: AnyBytes = 16 * MIB


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log on stderr; credentials never stand in it.

    format: auto is console on a terminal, else json.
    level: Least important line that is written.
    requests: A line for every plain request too, not only for streams.
    """

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: bool = False


_CREDENTIAL_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "cookie"})
_CREDENTIAL_WORDS: Final = ("key", "token", "secret", "auth")


class Upstream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Servers that answer alike. Exactly one of `url` and `urls` is written; `urls` is always filled in.

    url: http(s)://host[:port][/base/path].
    urls: Several, to balance over.
    balance: Which of several gets the next request.
    set_headers: Headers set on every request, in place of the client's.
    credentials: Whether set_headers spends a credential of ours, guarding its routes; found out if unsaid.
    tls_verify: Whether the certificate of an https url is verified.
    tls_ca: Path of the authorities to trust instead of the system's, PEM.
    keepalive: How long an unused connection is kept.
    """

    url: Annotated[str | None, URL] = None
    urls: Annotated[tuple[str, ...], Listing(URL, least=1)] = ()
    balance: Literal["least_streams", "round_robin"] = "least_streams"
    set_headers: Headers = {}
    credentials: bool | None = None
    tls_verify: bool = True
    tls_ca: File | None = None
    keepalive: Span = 15.0
    secret_headers: Annotated[tuple[str, ...], COMPUTED] = ()
    """Names in ``set_headers`` whose value came from the environment."""

    @property
    def injects_credentials(self) -> bool:
        """Whether requests here spend a credential of ours, so that web pages must be kept out."""
        if self.credentials is not None:
            return self.credentials
        return bool(self.secret_headers) or any(map(_names_credential, self.set_headers))

    def __repr__(self) -> str:
        """Everything but secrets: header values and paths of URLs (some hold a token) are left out."""
        shown = {
            "urls": tuple(f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, self.urls)),
            "balance": self.balance,
            "set_headers": dict.fromkeys(self.set_headers, "***"),
            "credentials": self.credentials,
            "tls_verify": self.tls_verify,
            "tls_ca": self.tls_ca,
            "keepalive": self.keepalive,
        }
        return f"Upstream({', '.join(f'{field}={value!r}' for field, value in shown.items())})"


def _names_credential(header: str) -> bool:
    lower = header.lower()
    return lower in _CREDENTIAL_HEADERS or any(word in lower for word in _CREDENTIAL_WORDS)


class Replay(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of a stream can be had again; `off` records nothing.

    max_events: Blocks in the log.
    max_bytes: Bytes in the log; it always holds its newest block.
    keep: How long a finished stream can be replayed.
    """

    max_events: int = 10_000
    max_bytes: Bytes = 4 * MIB
    keep: Span = 300.0
    enabled: Annotated[bool, COMPUTED] = True


class Timeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long each step may take.

    connect: To connect to the upstream, TLS included.
    first_byte: From the request to the response's headers.
    idle: Without a byte from the upstream; 300s. A feed has no limit unless its own route says one.
    total: For the whole stream.
    send: A client's socket taking nothing.
    """

    connect: Interval = 5.0
    first_byte: Interval = 600.0
    idle: Annotated[float | UnsetType | None, Duration(least=SHORTEST, off=True)] = UNSET
    total: IntervalOrOff = None
    send: Interval = 30.0
    idle_default: Annotated[float | None, COMPUTED] = DEFAULT_IDLE
    """What holds, except on feeds, where ``idle`` is unset: the ``idle`` of `defaults`."""


class Principal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stream belongs to besides its id: resume and cancel must bring the same value again.

    cookie: The cookie's name.
    header: The header's name.
    """

    cookie: TokenOrNone = None
    header: TokenOrNone = None


DialectName = Literal[
    "auto",
    "openai",
    "openai-responses",
    "anthropic",
    "gemini",
    "cohere",
    "ollama",
    "bedrock",
    "ndjson",
    "text",
    "generic",
]


EmitForm = Literal["passthrough", "unified", "openai", "ai-sdk", "ag-ui"]


class Emit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """In which form streams leave; `unified` alone is the same as `{form: unified}`.

    form: passthrough leaves the provider's blocks as they came; the others are told anew.
    raw: Whether events that the form has no place for are told as raw ones.
    """

    form: EmitForm = "passthrough"
    raw: bool = False


_FORMS: Final = {form: Emit(form=form) for form in get_args(EmitForm)}


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How streams are treated. Each setting may stand in `defaults` and in a route; the route wins.

    heartbeat: Silence towards a reader after which a heartbeat is written.
    retry: How long a client is told to wait before it reconnects.
    ids: Who numbers blocks; auto goes by the dialect, and keeps the upstream's own.
    linger: How long a stream goes on after its last reader left; 0s cancels at once.
    replay: How much of a stream can be had again; `off` records nothing.
    timeouts: How long each step may take.
    max_event_bytes: A longer block ends the stream.
    max_body: A longer request body is refused.
    max_message: A longer WebSocket message closes its connection (1009).
    max_concurrent: Streams that one WebSocket connection may follow at once; bridge only.
    high_water: Bytes in a reader's socket above which it is not written to.
    gap: What a reader gets whose next block is gone; auto is signal on feeds, else fail.
    finished: What a reconnect to a finished stream gets; auto is restart on feeds, else stop.
    slow_reader: pause stops reading the upstream for the fastest reader's sake; drop never does.
    open_after: Start the answer after so long without one from the upstream; a later failure is told in-band.
    dialect: What the upstream's stream looks like; auto goes by the path and the first block.
    observe: Whether models, tokens and times are read out of streams, for metrics and the log.
    emit: In which form the stream leaves; passthrough is as it came.
    principal: What a stream belongs to besides its id.
    hosts: Replaces the top-level hosts.
    origins: Replaces the top-level origins.
    """

    heartbeat: Annotated[float, Duration(least=HEARTBEAT_LEAST)] = 15.0
    retry: Span = 3.0
    ids: Literal["auto", "always", "never", "upstream"] = "auto"
    linger: Annotated[float, Duration(forever=True)] = 15.0
    replay: Annotated[Replay, Block(Replay, {"off": Replay(enabled=False), "on": Replay()})] = Replay()
    timeouts: Timeouts = Timeouts()
    max_event_bytes: Bytes = 16 * MIB
    max_body: AnyBytes = 4 * GIB
    max_message: Bytes = 16 * MIB
    max_concurrent: int = 1
    high_water: Bytes = 64 * KIB
    gap: Literal["auto", "fail", "signal"] = "auto"
    finished: Literal["auto", "stop", "restart"] = "auto"
    slow_reader: Literal["pause", "drop"] = "pause"
    open_after: Annotated[float | None, Duration(off=True)] = None
    dialect: DialectName = "auto"
    observe: bool = True
    emit: Annotated[Emit, Block(Emit, _FORMS)] = Emit()
    principal: Principal | None = None
    hosts: Hosts | None = None
    origins: Origins | None = None


class Prompt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The POST that stands behind a GET: EventSource can send nothing else.

    path: Where the upstream is asked, with its query if it needs one.
    body: A JSON object, as a mapping or as text; ${query.NAME} in its strings is what the query says.
    max_length: Characters that one value of the query may have.
    """

    path: Annotated[str, Text(syntax.target, syntax.PATH_PATTERN)]
    body: Annotated[Template, TemplateText()]
    max_length: int = 4000


class Alias(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an app calls its streams, by which they can be asked for; `id` alone is the same as `{field: id}`.

    field: The field of a JSON request body that names the chat.
    forward: Whether it goes upstream; if unsaid, not where the route's emit or dialect tells of a provider.
    """

    field: Name
    forward: bool | None = None


class Route(Policy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to match and where it goes; the first route that matches wins. Its policies are all resolved.

    name: Unique; stands in metrics, logs and problems.
    path: A pattern: /items/{id}, /v1/{tail:.*}.
    upstream: The name of one of `upstreams`.
    methods: Those served; all of them if not said.
    reconnect: Whether the sidecar reconnects a feed's upstream, unseen by its readers.
    reconnect_for: How long it goes on doing so without one event.
    strip_prefix: Removed from the front of the path before it goes upstream.
    host: Whose Host header goes upstream.
    websocket: What an Upgrade gets: bridge brings the route's streams, passthrough joins two WebSockets.
    inject: What is added to JSON bodies that ask for a stream, where they do not say it themselves.
    prompt: Makes of a GET with a query the POST that the upstream wants, for EventSource.
    alias: What the app calls its streams: GET <path>/<alias>/stream answers with the one that runs.
    """

    name: Name
    path: Annotated[str, Text(syntax.route_path, syntax.PATH_PATTERN)]
    upstream: str
    methods: Methods | None = None
    reconnect: bool = False
    reconnect_for: Span = 300.0
    strip_prefix: Prefix = ""
    host: Literal["upstream", "client"] = "upstream"
    websocket: Literal["off", "bridge", "passthrough"] = "off"
    inject: Annotated[str, Additions()] = ""
    prompt: Prompt | None = None
    alias: Annotated[Alias, Block(Alias, short="field")] | None = None

    @property
    def forwards_alias(self) -> bool:
        """Whether the field that names a chat goes upstream.

        An app may want to know which chat a request belongs to; providers refuse what they do not know.
        """
        if self.alias is None or self.alias.forward is not None:
            return self.alias is None or bool(self.alias.forward)
        may_be_an_app = self.dialect == "auto" or not DIALECTS[self.dialect].llm
        return self.emit.form == "passthrough" and may_be_an_app

    def idle_for(self, feed: bool) -> float | None:
        """Seconds without an upstream byte that end a stream; None for no limit.

        A feed is quiet for hours and healthy, so only its own route can limit it, not `defaults`.
        """
        if self.timeouts.idle is not UNSET:
            return self.timeouts.idle
        return None if feed else self.timeouts.idle_default


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sidecar: where it listens, what it may hold, and which path goes to which upstream how.

    listen: host:port, [v6]:port or unix:/path.
    tls: Serve TLS here; usually the edge's work.
    keepalive: How long a client's unused connection is kept; longer than an edge in front keeps its own.
    admin: The listener for operators; none if left out.
    node: This sidecar's name among several behind one edge; stream ids begin with it.
    store: Where streams' logs live.
    drain: How long running streams get at SIGTERM.
    fast_path: Take events in the very call in which their bytes arrive; if not, in a task for each stream.
    public_path: The path prefix that an edge in front strips; links to streams carry it.
    trusted_peers: Addresses and networks (or unix) whose Forwarded and X-Forwarded-* count.
    hosts: Host names that are ours, on any port; *.example.com is allowed.
    origins: Web origins that may call such routes from elsewhere, scheme://host[:port].
    limits: Bounds on what clients can make the whole process hold.
    log: The log on stderr.
    defaults: Policies of every route that does not say otherwise.
    upstreams: Servers by name.
    routes: In order; the first that matches wins.
    """

    listen: Listen = "127.0.0.1:8080"
    tls: Tls | None = None
    keepalive: Interval = 75.0
    admin: Admin | None = None
    node: Node = None
    store: Annotated[Store, Block(Store, {"memory": Store()})] = Store()
    drain: Span = 25.0
    fast_path: bool = True
    public_path: Prefix = ""
    trusted_peers: tuple[Peer, ...] = ()
    hosts: Hosts | None = None
    origins: Origins = ()
    limits: Limits = Limits()
    log: Log = Log()
    defaults: Policy = Policy()
    upstreams: Annotated[dict[str, Upstream], Table(Block(Upstream), check=syntax.name, least=1)]
    routes: Annotated[tuple[Route, ...], Listing(Block(Route), least=1)]
