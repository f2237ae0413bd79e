"""Every fault of a file is found, with its path, its line and a way out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.config import parse

Faults = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("added", "said"),
    [
        # wrong types and units: what came, what was expected
        ("node: 1", "node: expected text, got the number `1`; put it in quotes"),
        ("node: Web_1",
         "node: expected a name of 1 to 32 lower-case letters, digits and inner dashes, "
         "got the text `Web_1`"),
        (f"node: {'a' * 33}",
         "node: expected a name of 1 to 32 lower-case letters, digits and inner dashes, "
         f"got the text `{'a' * 33}`"),
        ("drain: [1]", "drain: expected a duration such as 15s, 250ms, 5m or 1h, got a list"),
        ("drain: soon", "drain: expected a duration such as 15s, 250ms, 5m or 1h, got the text `soon`"),
        ("drain: 15x", "drain: expected ms, s, m or h after the number, got the text `15x`"),
        ("drain: off", "drain: expected a duration such as 15s, 250ms, 5m or 1h, got the switch `off`"),
        ("drain:", "drain: expected a duration such as 15s, 250ms, 5m or 1h, got nothing"),
        ("drain: -1", "drain: expected a duration from 0s to 8784h, got the number `-1`"),
        ("drain: 600000m", "drain: expected a duration from 0s to 8784h, got the text `600000m`"),
        ("drain: ${X}", "drain: expected a duration such as 15s, 250ms, 5m or 1h, got the value of ${X}"),
        ("listen: 8080", "listen: expected host:port (0.0.0.0:8080 for every interface), [v6]:port or "
         "unix:/path, got the number `8080`"),
        ("public_path: {a: b}", "public_path: expected text, got a mapping"),
        ("hosts: example.com", "hosts: expected a list, such as [a, b], got the text `example.com`"),
        ("hosts: []", "hosts: the list is empty; it needs at least one element"),
        ("trusted_peers: [unix, 10.1.2.3/8]", "trusted_peers[1]: expected an address, a network without host "
         "bits (10.0.0.0/8) or `unix`, got the text `10.1.2.3/8`"),
        ("limits: 5", "limits: expected a mapping (key: value), got the number `5`"),
        ("limits: {streams: 0}", "limits.streams: expected a whole number from 1, got the number `0`"),
        ("limits: {streams: 1.5}", "limits.streams: expected a whole number from 1, got the number `1.5`"),
        ("limits: {streams: true}", "limits.streams: expected a whole number from 1, got the switch `true`"),
        ("limits: {streams: '5'}", "limits.streams: expected a whole number from 1, got the text `5`"),
        ("limits: {readers_per_caller: x}",
         "limits.readers_per_caller: expected a whole number from 1 or `off`, got the text `x`"),
        ("limits: {max_headers: 64K}", "limits.max_headers: expected a unit such as KiB (1024), KB (1000), "
         "MiB or MB after the number, got the text `64K`"),
        ("limits: {max_headers: 0}", "limits.max_headers: expected at least 1B, got the number `0`"),
        ("limits: {max_headers: 0.5}",
         "limits.max_headers: expected a whole number of bytes, got the number `0.5`"),
        ("limits: {websockets: 0}", "limits.websockets: expected a whole number from 1, got the number `0`"),
        ("limits: {websockets: off}",
         "limits.websockets: expected a whole number from 1, got the switch `off`"),
        ("defaults: {max_message: 0}", "defaults.max_message: expected at least 1B, got the number `0`"),
        ("defaults: {max_message: off}", "defaults.max_message: expected a size such as 64KiB, 4MiB, 10MB or "
         "a number of bytes, got the switch `off`"),
        ("defaults: {max_concurrent: 0}",
         "defaults.max_concurrent: expected a whole number from 1, got the number `0`"),
        ("log: {requests: maybe}", "log.requests: expected true or false, got the text `maybe`"),
        ("defaults: {heartbeat: 0}", "defaults.heartbeat: expected at least 10ms, got the number `0`"),
        ("defaults: {timeouts: {idle: 0s}}",
         "defaults.timeouts.idle: expected at least 1ms or `off`, got the text `0s`"),
        ("defaults: {linger: off}", "defaults.linger: expected a duration such as 15s, 250ms, 5m or 1h or "
         "`forever`, got the switch `off`"),
        ("defaults: {timeouts: 5}", "defaults.timeouts: expected a mapping (key: value), got the number `5`"),
        ("defaults: 5", "defaults: expected a mapping (key: value), got the number `5`"),
        ("defaults: {replay: some}",
         "defaults.replay: expected a mapping (key: value) or `off` or `on`, got the text `some`"),
        ("tls: {cert: 5, key: x}", "tls.cert: expected text, got the number; put it in quotes"),
        ("store: redis", "store: expected a mapping (key: value) or `memory`, got the text `redis`"),
        # words: those allowed, and the one that was probably meant
        ("log: {level: warn}", "log.level: expected one of debug, info, warning, error, got the text `warn`; "
         "did you mean `warning`?"),
        ("log: {format: xml}", "log.format: expected one of auto, json, console, got the text `xml`"),
        ("log: {format: off}", "log.format: expected one of auto, json, console, got the switch `off`"),
        ("log: {level: '${X}'}",
         "log.level: expected one of debug, info, warning, error, got the value of ${X}"),
        # keys
        ("drian: 5s", "drian: unknown key; did you mean `drain`?"),
        ("heartbeat: 5s", "heartbeat: unknown key; did you mean `defaults.heartbeat`?"),
        ("zzz: 5s", "zzz: unknown key"),
        ("admin: {port: 1}", "admin.port: unknown key; the keys here are listen, hosts"),
        ("store: {redis: x}", "store.redis: unknown key; the keys here are memory"),
        ("defaults: {idle: 5s}", "defaults.idle: unknown key; did you mean `timeouts.idle`?"),
        ("defaults: {path: /x}", "defaults.path: unknown key"),
        ("defaults: {websocket: bridge}", "defaults.websocket: unknown key"),
        ("limits: {websocket: 5}", "limits.websocket: unknown key; did you mean `websockets`?"),
        ("defaults: {replay: {enabled: false}}",
         "defaults.replay.enabled: unknown key; the keys here are max_events, max_bytes, keep"),
        ("defaults: {timeouts: {idle_default: 1s}}",
         "defaults.timeouts.idle_default: unknown key; "
         "the keys here are connect, first_byte, idle, total, send"),
        ("'two words': 5s", "<key>: unknown key"),
        ("tls: {cert: a}", "tls: `key` is missing"),
        # what could never take effect
        ("defaults: {open_after: 700s}",
         "defaults.open_after: is never reached: `timeouts.first_byte` answers 504 after 600s"),
        ("defaults: {timeouts: {idle: 60s, total: 30s}}",
         "defaults.timeouts.idle: is never reached: `total` ends the stream after 30s"),
        ("admin: {listen: 127.0.0.1:8080}", "admin: listens on 127.0.0.1:8080, as the sidecar itself does"),
        ("defaults: {principal: {}}", "defaults.principal: needs `cookie` or `header`, and not both"),
        ("defaults: {principal: {cookie: a, header: b}}",
         "defaults.principal: needs `cookie` or `header`, and not both"),
    ],
)  # fmt: skip
def test_faults(added: str, said: str, base: str, faults: Faults) -> None:
    """One fault makes one message, on its line; a fault in `defaults` is not told again for each route."""
    assert faults(f"{base}\n{added}\n", X="value") == [f"line 6: {said}"]


@pytest.mark.parametrize(
    ("upstream", "said"),
    [
        ("{}", "line 2: upstreams.app: needs `url` or `urls`, and not both"),
        ("{url: http://a, urls: [http://b]}", "line 2: upstreams.app: needs `url` or `urls`, and not both"),
        ("{url: null}", "line 2: upstreams.app.url: expected text, got nothing"),
        ("{urls: []}", "line 2: upstreams.app.urls: the list is empty; it needs at least one element"),
        ("{url: http://a, balance: random}",
         "line 2: upstreams.app.balance: expected one of least_streams, round_robin, got the text `random`"),
        ("{url: 'http://a/?x'}", "line 2: upstreams.app.url: expected a URL without query and fragment"),
        ("{url: http://a, set_headers: {a: x, A: y}}",
         "line 2: upstreams.app.set_headers.A: the same header as `a`: case does not matter"),
        ("{url: http://a, set_headers: {Connection: close}}",
         "line 2: upstreams.app.set_headers: Connection frames the message and is never set by hand"),
        ("{url: http://a, set_headers: {A: 5}}",
         "line 2: upstreams.app.set_headers.A: expected text, got the number; put it in quotes"),
        ("{url: http://a, set_headers: {A: '${KEY}'}}",
         "line 2: upstreams.app.set_headers.A: holds a line break or NUL "
         "(does the secret's file end in a newline?)"),
        ("{url: http://a, tls_ca: /ca.pem}", "line 2: upstreams.app.tls_ca: has no effect: no url is https"),
        ("{url: https://a, tls_ca: /ca.pem, tls_verify: false}",
         "line 2: upstreams.app.tls_ca: has no effect: `tls_verify` is off"),
    ],
)  # fmt: skip
def test_faults_of_upstreams(upstream: str, said: str, base: str, faults: Faults) -> None:
    """An upstream's faults are told with its name."""
    assert faults(base.replace("{url: http://127.0.0.1:3000}", upstream), KEY="sk-123\n") == [said]


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ("{path: /, upstream: app}", "routes[0]: `name` is missing"),
        ("{name: a b, path: /, upstream: app}",
         "routes[0].name: expected a name of 1 to 64 letters, digits, `_`, `.` or `-`, got the text `a b`"),
        ("{name: a, path: '/{x', upstream: app}", "routes[0].path: expected {} in pairs, around a name "
         "({id}) or a name and a regex ({id:[0-9]+}), got the text `/{x`"),
        ("{name: a, path: /_streams/x, upstream: app}", "routes[0].path: expected a path outside "
         "/_streams, where the sidecar answers itself, got the text `/_streams/x`"),
        ("{name: a, path: /, upstream: apq}",
         "routes[0].upstream: no such upstream, got the text `apq`; did you mean `app`?"),
        ("{name: a, path: /, upstream: xyz}",
         "routes[0].upstream: no such upstream, got the text `xyz`; there is app"),
        ("{name: a, path: /, upstream: '${KEY}'}",
         "routes[0].upstream: no such upstream, got the value of ${KEY}; there is app"),
        ("{name: a, path: /, upstream: app, methods: GET}",
         "routes[0].methods: expected a list, such as [a, b], got the text `GET`"),
        ("{name: a, path: /, upstream: app, methods: [POST], reconnect: true}",
         "routes[0].reconnect: needs GET, but the methods are POST"),
        ("{name: a, path: /v1beta, upstream: app, strip_prefix: /v1}",
         "routes[0].strip_prefix: expected whole leading segments of the path's literal part `/v1beta`"),
        ("{name: a, path: '/v1{tail:.*}', upstream: app, strip_prefix: /v1}",
         "routes[0].strip_prefix: expected whole leading segments of the path's literal part `/v1`"),
        ("{name: a, path: '/{v}/x', upstream: app, strip_prefix: /v1}",
         "routes[0].strip_prefix: expected whole leading segments of the path's literal part `/`"),
        ("{name: a, path: /, upstream: app, open_after: 10s, timeouts: {first_byte: 10s}}",
         "routes[0].open_after: is never reached: `timeouts.first_byte` answers 504 after 10s"),
        ("{name: a, path: /, upstream: app, websocket: brigde}", "routes[0].websocket: expected one of "
         "off, bridge, passthrough, got the text `brigde`; did you mean `bridge`?"),
        ("{name: a, path: /, upstream: app, websocket: yes}",
         "routes[0].websocket: expected one of off, bridge, passthrough, got the switch `yes`"),
        ("{name: a, path: /, upstream: app, websocket: bridge, max_message: 1X}",
         "routes[0].max_message: expected a unit such as KiB (1024), KB (1000), MiB or MB after the number, "
         "got the text `1X`"),
        # what bounds a WebSocket, where none is
        ("{name: a, path: /, upstream: app, max_message: 1KiB}",
         "routes[0].max_message: has no effect: needs `websocket: bridge or passthrough`"),
        ("{name: a, path: /, upstream: app, websocket: off, max_message: 1KiB}",
         "routes[0].max_message: has no effect: needs `websocket: bridge or passthrough`"),
        ("{name: a, path: /, upstream: app, max_concurrent: 2}",
         "routes[0].max_concurrent: has no effect: needs `websocket: bridge`"),
        ("{name: a, path: /, upstream: app, websocket: passthrough, max_concurrent: 2}",
         "routes[0].max_concurrent: has no effect: needs `websocket: bridge`"),
        # one fault is not told twice: whether they have an effect nobody knows
        ("{name: a, path: /, upstream: app, websocket: bride, max_message: 5, max_concurrent: 2}",
         "routes[0].websocket: expected one of off, bridge, passthrough, got the text `bride`; "
         "did you mean `bridge`?"),
        # forms
        ("{name: a, path: /, upstream: app, emit: unify}",
         "routes[0].emit: expected a mapping (key: value) or `passthrough` or `unified` or "
         "`openai` or `ai-sdk` or `ag-ui`, got the text `unify`"),
        ("{name: a, path: /, upstream: app, emit: {form: unified, rw: true}}",
         "routes[0].emit.rw: unknown key; did you mean `raw`?"),
        ("{name: a, path: /, upstream: app, emit: unified, dialect: generic}", "routes[0].emit: nobody knows "
         "what the events of dialect generic mean; they can only pass through"),
        ("{name: a, path: /, upstream: app, emit: unified, dialect: ndjson}", "routes[0].emit: nobody knows "
         "what the events of dialect ndjson mean; they can only pass through"),
        ("{name: a, path: /, upstream: app, emit: unified, ids: upstream}",
         "routes[0].ids: the blocks of `emit: unified` are not the upstream's"),
        ("{name: a, path: /, upstream: app, emit: {form: openai, raw: true}}",
         "routes[0].emit: `raw` has no effect: `openai` has no place for such events"),
        ("{name: a, path: /, upstream: app, emit: {raw: true}}",
         "routes[0].emit: `raw` has no effect: `passthrough` has no place for such events"),
        # names that an app gives to streams
        ("{name: a, path: /, upstream: app, alias: id}",
         "routes[0].alias: needs a `principal`: "
         "a chat's id can be guessed, and must not be all that it takes to read it"),
        ("{name: a, path: /, upstream: app, alias: id, principal: null}",
         "routes[0].alias: needs a `principal`: "
         "a chat's id can be guessed, and must not be all that it takes to read it"),
        ("{name: a, path: /, upstream: app, alias: id, principal: {}}",
         "routes[0].principal: needs `cookie` or `header`, and not both"),
        ("{name: a, path: '/chats/{x}', upstream: app, alias: id, principal: {cookie: s}}",
         "routes[0].alias: streams are asked for at <path>/<alias>/stream; "
         "expected a path with a fixed end, got `/chats/{x}`"),
        ("{name: a, path: /, upstream: app, alias: id, principal: {cookie: s}, methods: [GET]}",
         "routes[0].alias: has no effect: the alias is read from a body, and the methods are GET"),
        ("{name: a, path: /, upstream: app, alias: id, principal: {cookie: s}, replay: off}",
         "routes[0].alias: has no effect: `replay` is off, so that no stream can be read again"),
        ("{name: a, path: /, upstream: app, alias: a b, principal: {cookie: s}}",
         "routes[0].alias: expected a name of 1 to 64 letters, digits, `_`, `.` or `-`, got the text `a b`"),
        ("{name: a, path: /, upstream: app, alias: {forward: yes}, principal: {cookie: s}}",
         "routes[0].alias: `field` is missing"),
        ("{name: a, path: /, upstream: app, alias: [id], principal: {cookie: s}}",
         "routes[0].alias: expected a mapping (key: value) or the `field` alone, got a list"),
        ("just a name", "routes[0]: expected a mapping (key: value), got the text `just a name`"),
    ],
)  # fmt: skip
def test_faults_of_routes(route: str, said: str, base: str, faults: Faults) -> None:
    """A route's faults are told with its place in the list."""
    head = base.splitlines()[:3]
    assert faults("\n".join([*head, f"  - {route}", ""]), KEY="sk-123") == [f"line 4: {said}"]


def test_what_is_missing(faults: Faults) -> None:
    """Without upstreams and routes there is nothing to do; so there is with none of them."""
    assert faults("drain: 5s\n") == [
        "line 1: (top level): `upstreams` is missing",
        "line 1: (top level): `routes` is missing",
    ]
    assert faults("upstreams: {}\nroutes: []\n") == [
        "line 1: upstreams: is empty; it needs at least one entry",
        "line 2: routes: the list is empty; it needs at least one element",
    ]
    assert faults("- a\n") == ["line 1: (top level): expected a mapping (key: value), got a list"]


def test_all_faults_are_found_in_one_pass(faults: Faults) -> None:
    """Faults of every kind in one file are all told, by line; one does not hide another in the same route."""
    text = """\
listen: 8080x
upstreams:
  "my app": {url: http://a}
  app:
    url: ftp://a
    set_headers:
      Authorization: ${MISSING}
defaults:
  heartbeat: 15x
  replay: {max_event: 5}
  nonsense: 1
routes:
  - name: one
    path: /{tail:.*}
    upstream: ap
    ids: allways
  - name: one
    path: /api
    upstream: other
    linger: never
    linger: forever
  - path: /
"""
    assert faults(text) == [
        "line 1: listen: expected host:port (0.0.0.0:8080 for every interface), [v6]:port or unix:/path, "
        "got the text `8080x`",
        "line 3: upstreams: expected a name of 1 to 64 letters, digits, `_`, `.` or `-`, got `<key>`",
        "line 5: upstreams.app.url: expected http://host[:port][/path] or https://host[:port][/path]",
        "line 7: upstreams.app.set_headers.Authorization: environment variable MISSING is not set; "
        "${MISSING:-default} gives a default",
        "line 9: defaults.heartbeat: expected ms, s, m or h after the number, got the text `15x`",
        "line 10: defaults.replay.max_event: unknown key; did you mean `max_events`?",
        "line 11: defaults.nonsense: unknown key",
        "line 15: routes[0].upstream: no such upstream, got the text `ap`; did you mean `app`?",
        "line 16: routes[0].ids: expected one of auto, always, never, upstream, got the text `allways`; "
        "did you mean `always`?",
        "line 17: routes[1].name: routes[0] on line 13 has this name already",
        "line 18: routes[1].path: is never reached: routes[0] on line 14 matches all of it first",
        "line 19: routes[1].upstream: no such upstream, got the text `other`; there is app",
        "line 20: routes[1].linger: expected a duration such as 15s, 250ms, 5m or 1h or `forever`, "
        "got the text `never`",
        "line 21: routes[1].linger: duplicate key, first on line 20",
        "line 22: routes[2]: `name` is missing",
        "line 22: routes[2]: `upstream` is missing",
        "line 22: routes[2].path: is never reached: routes[0] on line 14 matches all of it first",
    ]


def test_order_of_routes(base: str, faults: Faults) -> None:
    """The first match wins: what stands behind a broader route, for all its methods, is never reached."""
    assert faults(
        base
        + "  - {name: api, path: /api, upstream: app}\n"
        + "  - {name: get, path: '/v1/{id}', upstream: app, methods: [GET]}\n"
    ) == [
        "line 5: routes[1].path: is never reached: routes[0] on line 4 matches all of it first",
        "line 6: routes[2].path: is never reached: routes[0] on line 4 matches all of it first",
    ]
    posts = base.replace('path: "/{tail:.*}"', 'path: "/{tail:.*}", methods: [post, put]')
    assert faults(
        posts
        + "  - {name: a, path: /api, upstream: app}\n"
        + "  - {name: b, path: /post, upstream: app, methods: [POST]}\n"
    ) == ["line 6: routes[2].path: is never reached: routes[0] on line 4 matches all of it first"]


def test_order_of_websockets(faults: Faults) -> None:
    """A handshake is a GET: a route behind one that serves GET, or WebSocket, for its path never gets one."""
    text = (
        "upstreams: {app: {url: http://127.0.0.1:3000}}\n"
        "routes:\n"
        "  - {name: pages, path: '/{tail:.*}', methods: [GET], upstream: app}\n"
        "  - {name: chat, path: /api/chat, methods: [POST], upstream: app, websocket: bridge}\n"
    )
    told = "line 4: routes[1].websocket: is never reached: routes[0] on line 3 takes the handshakes first"
    assert faults(text) == [told]
    assert parse(text.replace("[GET]", "[PUT]"))
    spoken = text.replace("[GET]", "[PUT]").replace("app}\n  -", "app, websocket: passthrough}\n  -")
    assert faults(spoken) == [told]


def test_order_of_aliases(faults: Faults) -> None:
    """Streams are asked for with GET below their route's path: a route before it must not take those."""
    text = (
        "upstreams: {app: {url: http://127.0.0.1:3000}}\n"
        "defaults: {principal: {cookie: sid}}\n"
        "routes:\n"
        "  - {name: pages, path: '/{tail:.*}', methods: [GET], upstream: app}\n"
        "  - {name: chat, path: /api/chat, methods: [POST], upstream: app, alias: id}\n"
    )
    told = (
        "line 5: routes[1].alias: is never reached: routes[0] on line 4 takes the GETs below its path first"
    )
    assert faults(text) == [told]
    assert parse(text.replace("[GET]", "[PUT]"))


def test_duplicate_names(base: str, faults: Faults) -> None:
    """Names stand in metrics and logs: each route has its own."""
    named = base.replace("/{tail:.*}", "/a") + "".join(
        f"  - {{name: {name}, path: /{n}, upstream: app}}\n"
        for n, name in enumerate(["other", "rest", "rest"])
    )
    assert faults(named) == [
        "line 6: routes[2].name: routes[0] on line 4 has this name already",
        "line 7: routes[3].name: routes[0] on line 4 has this name already",
    ]
