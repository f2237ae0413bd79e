"""What the tests of the configuration share: a smallest whole file, and the faults of a refused one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.config import Config, parse
from proxy.errors import ConfigError

Parse = Callable[..., Config]
Faults = Callable[..., list[str]]

BASE = """\
upstreams:
  app: {url: http://127.0.0.1:3000}
routes:
  - {name: rest, path: "/{tail:.*}", upstream: app}
"""


EVERYTHING = """\
listen: unix:/run/sidecar.sock
tls: {cert: /etc/tls/cert.pem, key: /etc/tls/key.pem}
admin: {listen: "[::1]:9000", hosts: [Ops.example.com]}
node: edge-1
keepalive: 90s
store: {memory: {max_bytes: 1GiB, tombstones: 10, tombstone_keep: 1h}}
drain: 0
fast_path: off
public_path: /edge/
trusted_peers: [10.0.0.0/8, unix]
hosts: [Example.com, "*.example.com"]
origins: ["https://example.com:443"]
limits:
  streams: 1
  readers: 2
  readers_per_stream: 3
  readers_per_caller: 4
  websockets: 6
  websockets_per_caller: 7
  max_headers: 5
  buffered_body: 0
log: {format: json, level: debug, requests: yes}
defaults: {heartbeat: 250ms}
upstreams:
  app:
    urls: [http://127.0.0.1:3000/, "https://app.internal/base/"]
    balance: round_robin
    set_headers: {X-Version: "2"}
    credentials: true
    tls_verify: true
    tls_ca: /etc/ca.pem
    keepalive: 1m
routes:
  - name: all
    path: /base/{tail:.*}
    upstream: app
    methods: [get, POST]
    reconnect: true
    reconnect_for: 1h
    strip_prefix: /base
    host: client
    websocket: bridge
    retry: 1500ms
    ids: always
    linger: forever
    replay: {max_events: 5, max_bytes: 6KiB, keep: 7s}
    timeouts: {connect: 1, first_byte: 2s, idle: 3s, total: 4m, send: 500ms}
    max_event_bytes: 1MiB
    max_body: 0
    max_message: 2MiB
    max_concurrent: 8
    high_water: 1KB
    gap: signal
    finished: restart
    slow_reader: drop
    open_after: 0
    dialect: openai-responses
    emit: {form: ag-ui, raw: yes}
    observe: off
    principal: {cookie: sid}
    hosts: [other.example]
    origins: []
  - name: ask
    path: /ask
    upstream: app
    inject: {stream_options: {include_usage: true}, user: "${WHO:-7}", temperature: 0.5, stop: [a, null]}
    prompt:
      path: /v1/chat/completions?v=1
      body: '{"messages":["Say ${query.what:-\\"hi\\"}: $$${query.to}"],"stream":true}'
      max_length: 9
  - name: chat
    path: /chat
    upstream: app
    principal: {cookie: sid}
    alias: {field: chat_id, forward: no}
"""


@pytest.fixture
def everything() -> str:
    """A configuration that writes every setting."""
    return EVERYTHING


@pytest.fixture
def base() -> str:
    """Four lines that are a whole configuration; what a test adds begins on line 5."""
    return BASE


@pytest.fixture
def faults() -> Faults:
    """The faults of a text that must be refused, each as ``line N: where: what``."""

    def faults_of(text: str, **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as refused:
            parse(text, "test.yaml", environ)
        return [str(problem) for problem in refused.value.problems]

    return faults_of


@pytest.fixture
def routed() -> Parse:
    """Reads the base file with a YAML flow mapping as `defaults` and another one's entries in its route."""

    def routed_with(defaults: str, route: str = "") -> Config:
        text = BASE.replace("upstream: app}", f"upstream: app{', ' * bool(route)}{route}}}")
        return parse(f"{text}defaults: {defaults}\n", environ={})

    return routed_with
