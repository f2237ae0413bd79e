"""A whole file in, a whole configuration out: what is read, resolved, kept secret."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import (
    Admin,
    Alias,
    Config,
    Emit,
    Limits,
    Log,
    MemoryStore,
    Policy,
    Principal,
    Prompt,
    Replay,
    Route,
    Store,
    Timeouts,
    Tls,
    Upstream,
    load,
    parse,
)
from proxy.config.form import settings_of
from proxy.config.json_schema import STRUCTS
from proxy.config.model import DialectName, EmitForm
from proxy.config.template import Reference, Template
from proxy.dialects import DIALECTS
from proxy.emit import EMITS
from proxy.errors import ConfigError

Routed = Callable[..., Config]


def test_every_setting(everything: str) -> None:
    """Every setting that can be written arrives, converted and normalised."""
    assert parse(everything, environ={}) == Config(
        listen="unix:/run/sidecar.sock",
        tls=Tls(cert="/etc/tls/cert.pem", key="/etc/tls/key.pem"),
        admin=Admin(listen="[::1]:9000", hosts=("ops.example.com",)),
        node="edge-1",
        keepalive=90.0,
        store=Store(memory=MemoryStore(max_bytes=1 << 30, tombstones=10, tombstone_keep=3600.0)),
        drain=0.0,
        fast_path=False,
        public_path="/edge",
        trusted_peers=("10.0.0.0/8", "unix"),
        hosts=("example.com", "*.example.com"),
        origins=("https://example.com",),
        limits=Limits(
            streams=1,
            readers=2,
            readers_per_stream=3,
            readers_per_caller=4,
            websockets=6,
            websockets_per_caller=7,
            max_headers=5,
            buffered_body=0,
        ),
        log=Log(format="json", level="debug", requests=True),
        defaults=Policy(heartbeat=0.25),
        upstreams={
            "app": Upstream(
                urls=("http://127.0.0.1:3000", "https://app.internal/base"),
                balance="round_robin",
                set_headers={"X-Version": "2"},
                credentials=True,
                tls_verify=True,
                tls_ca="/etc/ca.pem",
                keepalive=60.0,
            )
        },
        routes=(
            Route(
                name="all",
                path="/base/{tail:.*}",
                upstream="app",
                methods=("GET", "POST"),
                reconnect=True,
                reconnect_for=3600.0,
                strip_prefix="/base",
                host="client",
                websocket="bridge",
                heartbeat=0.25,
                retry=1.5,
                ids="always",
                linger=math.inf,
                replay=Replay(max_events=5, max_bytes=6144, keep=7.0),
                timeouts=Timeouts(connect=1.0, first_byte=2.0, idle=3.0, total=240.0, send=0.5),
                max_event_bytes=1 << 20,
                max_body=0,
                max_message=2 << 20,
                max_concurrent=8,
                high_water=1000,
                gap="signal",
                finished="restart",
                slow_reader="drop",
                open_after=0.0,
                dialect="openai-responses",
                emit=Emit(form="ag-ui", raw=True),
                observe=False,
                principal=Principal(cookie="sid"),
                hosts=("other.example",),
                origins=(),
            ),
            Route(
                name="ask",
                path="/ask",
                upstream="app",
                methods=("GET", "HEAD"),
                heartbeat=0.25,
                ids="always",
                hosts=("example.com", "*.example.com"),
                origins=("https://example.com",),
                inject='{"stream_options":{"include_usage":true},"user":"7","temperature":0.5,"stop":["a",null]}',
                prompt=Prompt(
                    path="/v1/chat/completions?v=1",
                    body=Template(
                        (
                            '{"messages":["Say ',
                            Reference("what", '"hi"'),
                            ": $",
                            Reference("to"),
                            '"],"stream":true}',
                        )
                    ),
                    max_length=9,
                ),
            ),
            Route(
                name="chat",
                path="/chat",
                upstream="app",
                heartbeat=0.25,
                principal=Principal(cookie="sid"),
                hosts=("example.com", "*.example.com"),
                origins=("https://example.com",),
                alias=Alias(field="chat_id", forward=False),
            ),
        ),
    )


def test_every_setting_is_among_them(everything: str) -> None:
    """The file above grows with the settings; of `url` and `urls`, `cookie` and `header` it says one."""
    settings = {name for struct in (Config, *STRUCTS) for name in settings_of(struct)}
    unsaid = {name for name in settings if not re.search(rf"\b{name}: ", everything.replace("\n", " "))}
    assert unsaid == {"url", "header"}


def test_every_dialect_and_every_form_can_be_named() -> None:
    """Those that there are, and the words for no choice of one."""
    assert get_args(DialectName) == ("auto", *DIALECTS)
    assert get_args(EmitForm) == ("passthrough", *EMITS)


def test_the_smallest_file(base: str) -> None:
    """An upstream and a route are enough; everything else has a default."""
    assert parse(base, environ={}) == Config(
        upstreams={"app": Upstream(url="http://127.0.0.1:3000", urls=("http://127.0.0.1:3000",))},
        routes=(Route(name="rest", path="/{tail:.*}", upstream="app"),),
    )


def test_equal_files_compare_equal(base: str) -> None:
    """A reload can tell which routes and upstreams changed, and look routes up."""
    one, same = parse(base, environ={}), parse(f"# again\n{base}", environ={})
    other = parse(base.replace("3000", "3001").replace("name: rest", "name: all"), environ={})
    assert one == same
    assert hash(one.routes[0]) == hash(same.routes[0])
    assert one.routes[0] != other.routes[0]
    assert one.upstreams["app"] != other.upstreams["app"]


def test_settings_are_frozen(base: str) -> None:
    """Nothing changes a configuration that streams run under."""
    config = parse(base, environ={})
    for struct in (
        config,
        config.routes[0],
        config.routes[0].timeouts,
        config.upstreams["app"],
        config.limits,
    ):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(struct, struct.__struct_fields__[0], None)


# ── defaults ────────────────────────────────────────────────────────────────────────────────────────────


def test_defaults_reach_routes(routed: Routed) -> None:
    """A route has the defaults' policies where it does not say otherwise."""
    config = routed("{heartbeat: 1s, retry: 2s, gap: fail}", "retry: 5s")
    assert config.defaults == Policy(heartbeat=1.0, retry=2.0, gap="fail")
    assert (config.routes[0].heartbeat, config.routes[0].retry, config.routes[0].gap) == (1.0, 5.0, "fail")


def test_bounds_of_websockets_reach_routes(routed: Routed) -> None:
    """In `defaults` they are for whichever route has WebSockets; a route's own win."""
    defaults = "{max_message: 1KiB, max_concurrent: 3}"
    plain, bridge = (
        routed(defaults).routes[0],
        routed(defaults, "websocket: bridge, max_concurrent: 5").routes[0],
    )
    assert (plain.websocket, plain.max_message, plain.max_concurrent) == ("off", 1024, 3)
    assert (bridge.websocket, bridge.max_message, bridge.max_concurrent) == ("bridge", 1024, 5)
    tunnel = routed(defaults, "websocket: passthrough, max_message: 1GiB").routes[0]
    assert (tunnel.websocket, tunnel.max_message) == ("passthrough", 1 << 30)


def test_replay_and_timeouts_merge_key_by_key(routed: Routed) -> None:
    """A route that says one bound or timeout keeps the defaults' others."""
    defaults = "{replay: {max_events: 5, keep: 1s}, timeouts: {connect: 1s, send: 2s}}"
    route = routed(defaults, "replay: {keep: 2s}, timeouts: {send: 3s}").routes[0]
    assert route.replay == Replay(max_events=5, keep=2.0)
    assert route.timeouts == Timeouts(connect=1.0, send=3.0)


@pytest.mark.parametrize(
    ("default", "own", "replay"),
    [
        ("off", "", Replay(enabled=False)),
        ("off", "replay: on", Replay()),
        ("off", "replay: {max_events: 5}", Replay(max_events=5)),
        ("{max_events: 5}", "replay: off", Replay(enabled=False)),
        ("{max_events: 5}", "replay: on", Replay(max_events=5)),
        ("on", "replay: {max_events: 5}", Replay(max_events=5)),
    ],
)
def test_replay_off_and_on(default: str, own: str, replay: Replay, routed: Routed) -> None:
    """A route turns off what the defaults turn on, and the other way round."""
    assert routed(f"{{replay: {default}}}", own).routes[0].replay == replay


@pytest.mark.parametrize(
    ("said", "forwarded"),
    [
        ("alias: id", True),
        ("alias: id, dialect: text", True),
        ("alias: id, dialect: openai", False),
        ("alias: id, emit: ai-sdk", False),
        ("alias: {field: id, forward: yes}, emit: ai-sdk", True),
        ("alias: {field: id, forward: no}", False),
        ("alias: null, emit: ai-sdk", True),
    ],
)
def test_an_alias_is_no_field_of_a_providers(said: str, forwarded: bool, base: str) -> None:
    """It goes upstream where that may be an app, and not where the route says that it is a provider."""
    text = base.replace(
        '"/{tail:.*}", upstream: app', f"/chat, upstream: app, principal: {{cookie: s}}, {said}"
    )
    assert parse(text).routes[0].forwards_alias is forwarded


def test_a_principal_is_replaced_whole(routed: Routed) -> None:
    """A cookie in the defaults and a header in the route are not two principals."""
    route = routed("{principal: {cookie: sid}}", "principal: {header: X-User}").routes[0]
    assert route.principal == Principal(header="X-User")
    assert routed("{principal: {cookie: sid}}", "principal: null").routes[0].principal is None


def test_hosts_and_origins_reach_routes(base: str) -> None:
    """Top-level hosts and origins hold for every route that, with its defaults, says none."""
    text = (
        base.replace("app}", "app, hosts: [r.example]}")
        + "hosts: [a.example]\norigins: ['https://a.example']\n"
    )
    route = parse(text, environ={}).routes[0]
    assert (route.hosts, route.origins) == (("r.example",), ("https://a.example",))


@pytest.mark.parametrize(
    ("defaults", "own", "stream", "feed"),
    [
        ("{}", "", 300.0, None),
        ("{timeouts: {idle: 60s}}", "", 60.0, None),
        ("{timeouts: {idle: off}}", "", None, None),
        ("{}", "timeouts: {idle: 5s}", 5.0, 5.0),
        ("{timeouts: {idle: 60s}}", "timeouts: {idle: 5s}", 5.0, 5.0),
        ("{timeouts: {idle: 60s}}", "timeouts: {idle: off}", None, None),
        ("{timeouts: {idle: 60s}}", "timeouts: {send: 1s}", 60.0, None),
    ],
)
def test_idle(defaults: str, own: str, stream: float | None, feed: float | None, routed: Routed) -> None:
    """A feed is quiet and healthy: only its own route limits that; other streams have the default."""
    route = routed(defaults, own).routes[0]
    assert (route.idle_for(feed=False), route.idle_for(feed=True)) == (stream, feed)


# ── words and references ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("off", ["off", "'off'", "false", "no", "${OFF}", "${UNSET:-off}"])
def test_off(off: str, base: str) -> None:
    """YAML makes a boolean of `off`; it means off all the same, quoted or from the environment."""
    text = f"{base}defaults:\n  replay: {off}\n  open_after: {off}\n  timeouts:\n    total: {off}\n"
    policy = parse(text, environ={"OFF": "off"}).defaults
    assert (policy.replay.enabled, policy.open_after, policy.timeouts.total) == (False, None, None)


def test_references_of_every_type(base: str) -> None:
    """A reference can give a number, a duration, a size, a word or a switch."""
    text = (
        f"{base}drain: ${{DRAIN}}\nlimits:\n  streams: ${{N:-100}}\n  max_headers: '${{SIZE}}'\n"
        "log:\n  level: ${LEVEL}\n  requests: ${FLAG}\nstore: ${STORE:-memory}\n"
    )
    config = parse(text, environ={"DRAIN": "90", "SIZE": "8KiB", "LEVEL": "error", "FLAG": "true"})
    assert (config.drain, config.limits.streams, config.limits.max_headers) == (90.0, 100, 8192)
    assert (config.log, config.store) == (Log(level="error", requests=True), Store())


# ── credentials ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("upstream", "injects"),
    [
        ("{url: http://a}", False),
        ("{url: http://a, set_headers: {X-Version: '2', User-Agent: me}}", False),
        ("{url: http://a, set_headers: {authorization: x}}", True),
        ("{url: http://a, set_headers: {Proxy-Authorization: x}}", True),
        ("{url: http://a, set_headers: {Cookie: a=b}}", True),
        ("{url: http://a, set_headers: {x-api-KEY: x}}", True),
        ("{url: http://a, set_headers: {X-Goog-Token: x}}", True),
        ("{url: http://a, set_headers: {X-Shared-Secret: x}}", True),
        ("{url: http://a, set_headers: {X-Auth: x}}", True),
        ("{url: http://a, set_headers: {X-Plan: '${PLAN}'}}", True),
        ("{url: http://a, set_headers: {X-Plan: '${UNSET:-free}'}}", True),
        ("{url: http://a, set_headers: {X-Plan: '${PLAN}', X-Auth: x}, credentials: false}", False),
        ("{url: http://a, credentials: true}", True),
    ],
)
def test_injected_credentials(upstream: str, injects: bool) -> None:
    """A header named like a credential, or valued from the environment, makes one, unless said otherwise."""
    text = f"upstreams: {{a: {upstream}}}\nroutes: [{{name: a, path: /, upstream: a}}]\n"
    assert parse(text, environ={"PLAN": "gold"}).upstreams["a"].injects_credentials is injects


# A blank makes it no number, word, path or name: whatever setting it lands in refuses it.
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12).map("0s3 cr3t-".__add__)
MISPLACED = [
    "drain", "public_path", "store", "limits.streams", "limits.max_headers", "log.level", "log.requests",
    "routes", "defaults.heartbeat", "defaults.replay", "defaults.principal.cookie", "hosts",
    "upstreams.app.url", "upstreams.app.balance", "upstreams.app.set_headers", "upstreams.app.credentials",
]  # fmt: skip


@given(SECRETS, st.sampled_from(MISPLACED))
def test_a_misplaced_secret_is_not_told(secret: str, where: str) -> None:
    """A variable's value that landed in the wrong setting does not reach whoever reads the log."""
    document: dict[str, Any] = {
        "upstreams": {"app": {"url": "http://app"}},
        "routes": [{"name": "a", "path": "/", "upstream": "app"}],
    }
    inner = document
    *parents, last = where.split(".")
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[last] = "${SECRET}"
    with pytest.raises(ConfigError) as refused:
        parse(msgspec.json.encode(document).decode(), environ={"SECRET": secret})
    assert secret not in str(refused.value)
    assert "the value of ${SECRET}" in str(refused.value) or where == "upstreams.app.url"


def test_literal_secrets_are_not_shown() -> None:
    """The usual slips with a key in the file: no colon, a list, a password in a URL, a key file's text."""
    slips = [
        "set_headers: {Authorization Bearer sk-123: }",
        "set_headers: [Authorization Bearer sk-123]",
        "set_headers: Bearer sk-123",
        "set_headers: {X: [sk-123]}",
        'set_headers: {X: "sk-123\\n"}',
        "url: http://me:sk-123@host",
        "url: http://host/?key=sk-123",
        "tls_ca: 'sk-123\n\n  sk-123'",
    ]
    for slip in slips:
        text = f"upstreams:\n  a:\n    {slip}\nroutes: [{{name: a, path: /, upstream: a}}]\n"
        with pytest.raises(ConfigError) as refused:
            parse(text, environ={})
        assert "sk-123" not in str(refused.value), slip


def test_reprs_show_no_secret() -> None:
    """A configuration in a log or a traceback shows which headers are set, not to what."""
    upstream = (
        "{url: 'https://host/bot${TOKEN}', set_headers: {Authorization: 'Bearer ${TOKEN}', X: literal}}"
    )
    text = f"upstreams: {{a: {upstream}}}\nroutes: [{{name: a, path: /, upstream: a}}]\n"
    config = parse(text, environ={"TOKEN": "sk-123"})
    assert config.upstreams["a"].set_headers == {"Authorization": "Bearer sk-123", "X": "literal"}
    assert config.upstreams["a"].urls == ("https://host/botsk-123",)
    assert "sk-123" not in repr(config)
    assert "literal" not in repr(config)
    assert "'Authorization': '***'" in repr(config)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────


def test_load(tmp_path: Path, base: str) -> None:
    """A file is read from a path of either kind, with the environment given."""
    file = tmp_path / "sidecar.yaml"
    file.write_text(f"{base}drain: ${{DRAIN}}\n")
    assert load(file, {"DRAIN": "1m"}).drain == 60.0
    assert load(str(file), {"DRAIN": "1m"}) == load(file, {"DRAIN": "60s"})


def test_load_uses_the_process_environment(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless told otherwise, references are to the process's environment."""
    file = tmp_path / "sidecar.yaml"
    file.write_text(f"{base}drain: ${{SIDECAR_TEST_DRAIN}}\n")
    monkeypatch.setenv("SIDECAR_TEST_DRAIN", "1m")
    assert load(file).drain == 60.0


def test_load_of_what_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a directory, a file that is too large or no text: each ConfigError says so."""
    large, binary = tmp_path / "large", tmp_path / "binary"
    large.write_bytes(b"#" * (2 << 20))
    binary.write_bytes(b"a: 1\n\xff\xfe\n")
    for path, said in [
        (tmp_path / "missing", "line 1: (file): cannot be read: No such file or directory"),
        (tmp_path, "line 1: (file): cannot be read: Is a directory"),
        (large, "line 1: (file): is larger than 1048576 bytes"),
        (binary, "line 2: (file): is not UTF-8: byte 0xff"),
    ]:
        with pytest.raises(ConfigError) as refused:
            load(path, {})
        assert str(refused.value) == f"{path}:{said}"
        assert refused.value.source == str(path)


@given(st.text() | st.text("ab{}[]:,-&*<> \n'\"$|#?!%", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes anything but a configuration or a ConfigError with at least one problem."""
    with pytest.raises(ConfigError) as refused:
        parse(text, environ={})
    assert refused.value.problems
