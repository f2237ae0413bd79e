"""The opening handshake: what is one, who may make it, and what its subprotocols carry."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.errors import BadRequest, Refused, UpgradeRequired
from proxy.server import handshake
from tests.conftest import StartOrigin, StartSidecar, config_for
from tests.support.client import ask
from tests.support.origin import reply, response
from tests.support.script import streams
from tests.support.websocket import ACCEPT, KEY, ask_upgrade, connect

#: What a browser's handshake says of WebSocket, in the order in which Chromium does.
FIELDS = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", KEY)]


def check(*fields: tuple[str, str], **options: Any) -> str:
    """Check a handshake of these fields."""
    return handshake.check(make_mocked_request("GET", "/", headers=CIMultiDict(fields), **options))


# Which version, which key


def test_a_handshake_has_a_key() -> None:
    """It is returned as it came, and answered as the RFC's own example is (§1.3)."""
    assert check(*FIELDS) == KEY == "dGhlIHNhbXBsZSBub25jZQ=="
    assert handshake.accept_of(KEY) == ACCEPT == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@given(st.binary(min_size=16, max_size=16))
def test_any_sixteen_bytes_are_a_key(key: bytes) -> None:
    """§4.1: "a nonce consisting of a randomly selected 16-byte value that has been base64-encoded"."""
    encoded = base64.b64encode(key).decode()
    assert check(*FIELDS[:2], ("Sec-WebSocket-Key", encoded)) == encoded


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [""],
        ["AAAA"],
        [base64.b64encode(bytes(15)).decode()],
        [base64.b64encode(bytes(17)).decode()],
        [KEY.rstrip("=")],
        [KEY.replace("=", "")[:-1] + "=="],
        [KEY[:-1] + "!"],
        [KEY[:4] + " " + KEY[4:]],
        [KEY[:-2] + "é="],
        ["-" * 22 + "=="],
        [KEY + KEY],
        [KEY, KEY],
        [KEY, base64.b64encode(os.urandom(16)).decode()],
        [f"{KEY}, {KEY}"],
    ],
)
def test_anything_else_is_none(keys: list[str]) -> None:
    """Missing, twice, in another alphabet, or of another length."""
    with pytest.raises(BadRequest, match="expected one Sec-WebSocket-Key, 16 bytes in base64"):
        check(*FIELDS[:2], *[("Sec-WebSocket-Key", key) for key in keys])


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ([], "none"),
        ([""], "none"),
        (["8"], "8"),
        (["013"], "013"),
        (["13.0"], "13.0"),
        (["13, 8"], "13, 8"),
        (["13", "13"], "13, 13"),
        (["1" * 1000], "1" * 40),
    ],
)
def test_another_version(versions: list[str], said: str) -> None:
    """§4.4: the answer names the version that is spoken, and what came is told."""
    with pytest.raises(UpgradeRequired) as refused:
        check(("Upgrade", "websocket"), ("Sec-WebSocket-Key", KEY),
              *[("Sec-WebSocket-Version", version) for version in versions])  # fmt: skip
    assert str(refused.value) == f"Sec-WebSocket-Version: expected 13, got {said}"
    assert refused.value.status == 426
    assert refused.value.headers["Sec-WebSocket-Version"] == "13"


async def test_a_body() -> None:
    """The attack: what one peer takes for a body, the other takes for frames."""
    with pytest.raises(BadRequest, match="has no body"):
        check(*FIELDS, payload=StreamReader(make_mocked_request("GET", "/").protocol, 1))


# What an upstream answers


@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade"])
def test_a_101_that_fits(connection: str) -> None:
    """§4.1: two tokens whose case does not matter, and a proof whose case does."""
    answer = CIMultiDict({"Upgrade": "WebSocket", "Connection": connection, "Sec-WebSocket-Accept": ACCEPT})
    assert handshake.fault_of(answer, KEY) is None


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"Upgrade": "h2c"}, "another protocol"),
        ({"Upgrade": ""}, "another protocol"),
        ({"Connection": "keep-alive"}, "no 'Connection: Upgrade'"),
        ({"Connection": "upgraded"}, "no 'Connection: Upgrade'"),
        ({"Sec-WebSocket-Accept": ACCEPT.lower()}, "does not fit the key"),
        ({"Sec-WebSocket-Accept": ""}, "does not fit the key"),
        ({"Sec-WebSocket-Accept": handshake.accept_of("another")}, "does not fit the key"),
    ],
)
def test_a_101_that_does_not_fit(changed: dict[str, str], fault: str) -> None:
    """A cache or a server of another protocol is found out before a frame goes to it."""
    fields = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT, **changed}
    assert fault in (handshake.fault_of(CIMultiDict(fields), KEY) or "")
    for name in changed:
        del fields[name]
    assert fault in (handshake.fault_of(CIMultiDict(fields), KEY) or "")


@pytest.mark.parametrize("subprotocol", [None, "sse-sidecar.v1"])
def test_our_own_101(subprotocol: str | None) -> None:
    """It fits the key, and names a subprotocol only where one was chosen."""
    answer = handshake.switching(KEY, subprotocol)
    assert handshake.fault_of(answer, KEY) is None
    assert answer.get("Sec-WebSocket-Protocol") == subprotocol
    assert "Sec-WebSocket-Extensions" not in answer


# Subprotocols, and the credentials among them


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (["a"], ["a"]),
        (["a,b"], ["a", "b"]),
        ([" a ,\tb", "c,"], ["a", "b", "c"]),
        (["B, a, B"], ["B", "a", "B"]),
    ],
)
def test_what_is_offered(values: list[str], names: list[str]) -> None:
    """One field or several, in the client's order."""
    headers = CIMultiDict([("Sec-WebSocket-Protocol", value) for value in values])
    assert handshake.offered(headers) == names


@pytest.mark.parametrize(
    ("names", "token"),
    [
        ([], None),
        (["sse-sidecar.v1"], None),
        (["bearer."], None),
        (["Bearer.x"], None),
        (["bearer"], None),
        (["xbearer.x"], None),
        (["bearer.abc"], "abc"),
        (["sse-sidecar.v1", "bearer.a.b-c_d~e+f/g=="], "a.b-c_d~e+f/g=="),
        (["bearer.bearer.x", "other"], "bearer.x"),
    ],
)
def test_a_bearer(names: list[str], token: str | None) -> None:
    """Whatever stands behind the first ``bearer.``; nothing there is no credential."""
    assert handshake.bearer_of(names) == token


@pytest.mark.parametrize(
    "names", [["bearer.a", "bearer.b"], ["bearer.a", "bearer.a"], ["bearer.", "bearer.a"]]
)
def test_two_bearers(names: list[str]) -> None:
    """Who is it? The answer does not repeat them."""
    with pytest.raises(BadRequest) as refused:
        handshake.bearer_of(names)
    assert str(refused.value) == "2 subprotocols begin with 'bearer.'; expected one"


@pytest.mark.parametrize(
    ("values", "left"),
    [
        (["a, b"], ["a, b"]),
        (["a , b", "c"], ["a , b", "c"]),
        (["bearer.x, a", "b"], ["a, b"]),
        (["a", "openai-insecure-api-key.sk-1, b"], ["a, b"]),
        (["bearer.x"], []),
        (["bearer.x", "openai-insecure-api-key.sk-1"], []),
        ([], []),
    ],
)
def test_what_is_left_without_secrets(values: list[str], left: list[str]) -> None:
    """Untouched where there are none; one field of what is left; no field where nothing is."""
    headers = CIMultiDict([("X", "y"), *[("Sec-WebSocket-Protocol", value) for value in values]])
    handshake.without_secrets(headers)
    assert headers.getall("Sec-WebSocket-Protocol", []) == left
    assert headers["X"] == "y"


# Who may

LISTED = ["https://app.example", "http://localhost:3000"]
MINE, FOREIGN = "http://chat.example", "https://evil.example"


def may_open(origin: str | None, *, cookie: bool = False, **route: Any) -> bool:
    """Ask whether a page of this origin may open a WebSocket to chat.example."""
    config = config_for("http://127.0.0.1:1", route={"websocket": "bridge", **route})
    headers = {"Host": "chat.example"}
    if origin is not None:
        headers["Origin"] = origin
    if cookie:
        headers["Cookie"] = "session=1"
    try:
        handshake.check_origin(make_mocked_request("GET", "/", headers=headers), config, config.routes[0])
    except Refused:
        return False
    return True


@pytest.mark.parametrize("cookie", [True, False])
@pytest.mark.parametrize("kind", ["bridge", "passthrough"])
def test_a_list_of_origins_holds_for_every_page(kind: str, *, cookie: bool) -> None:
    """Those listed, and our own; the list is compared to the letter. What is no page has no origin."""
    route: dict[str, Any] = {"websocket": kind, "origins": LISTED, "cookie": cookie}
    for origin in (*LISTED, MINE, "https://chat.example", None):
        assert may_open(origin, **route)
    for origin in (FOREIGN, "null", "", "http://app.example", "https://app.example:8443", "https://app.example.",
                   "https://app.example.evil.example", "http://chat.example:81", "chat.example"):  # fmt: skip
        assert not may_open(origin, **route), origin


def test_a_bridge_lets_in_its_own_pages_only() -> None:
    """The attack: a foreign page opens a WebSocket to which the browser adds the user's cookies
    (cross-site hijacking), or to an app that takes whoever is near.
    """
    assert not may_open(FOREIGN, cookie=True)
    assert not may_open("null", cookie=True)
    assert may_open(MINE, cookie=True)
    assert may_open(None, cookie=True)
    assert not may_open(FOREIGN)
    assert not may_open("null")
    assert not may_open(FOREIGN, cookie=True, origins=[])


def test_an_app_behind_a_pass_through_judges_for_itself() -> None:
    """It sees the Origin, and may know more of it than we do."""
    assert may_open(FOREIGN, cookie=True, websocket="passthrough")


@pytest.mark.parametrize("origin", ["http://[", "http://[x]", "http://a]b", "http://\u2100"])
def test_an_origin_that_is_none(origin: str) -> None:
    """The attack: an Origin at which a parser of URLs fails. It is foreign, and no fault of ours."""
    assert not may_open(origin, cookie=True)
    assert not may_open(origin)


def test_the_top_level_list_holds_where_a_route_has_none() -> None:
    """As for any other request."""
    route = {"websocket": "bridge"}
    config = config_for("http://127.0.0.1:1", route=route, origins=LISTED)
    foreign = make_mocked_request("GET", "/", headers={"Host": "x", "Origin": FOREIGN * 50})
    with pytest.raises(Refused) as refused:
        handshake.check_origin(foreign, config, config.routes[0])
    assert len(str(refused.value)) < 200, "what a client wrote is not repeated at any length"


# On a socket


async def test_a_foreign_page_gets_no_socket(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """A 403 before anything is opened, which names the setting."""
    sidecar = await start_sidecar((await start_origin(streams())).url, route={"websocket": "bridge"})
    said = {"Origin": FOREIGN, "Cookie": "session=1"}
    for headers in (said, {**said, "Origin": "http://[x]"}, {**said, "Origin": "null"}):
        answer = await ask_upgrade(sidecar.url, headers=headers)
        assert answer.status == 403
        assert "origins" in (await answer.json())["detail"]
    assert not sidecar.hub.sockets
    await connect(sidecar.url, headers={**said, "Origin": sidecar.url})
    await connect(sidecar.url)


@pytest.mark.parametrize(
    ("method", "version", "fields"),
    [
        ("GET", "HTTP/1.1", {"Upgrade": "websocket"}),
        ("GET", "HTTP/1.1", {"Upgrade": "websocket", "Connection": "keep-alive"}),
        ("GET", "HTTP/1.1", {"Connection": "Upgrade"}),
        ("GET", "HTTP/1.1", {"Connection": "Upgrade", "Upgrade": "h2c"}),
        ("GET", "HTTP/1.1", {"Connection": "Upgrade", "Upgrade": "websockets"}),
        ("GET", "HTTP/1.0", {"Connection": "Upgrade", "Upgrade": "websocket"}),
        ("HEAD", "HTTP/1.1", {"Connection": "Upgrade", "Upgrade": "websocket"}),
        ("POST", "HTTP/1.1", {"Connection": "Upgrade", "Upgrade": "websocket"}),
    ],
)
async def test_what_asks_for_no_websocket(
    method: str, version: str, fields: dict[str, str], start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Half an offer, or one of something else: the request is served as if it were not there."""
    origin = await start_origin(reply(response(body=b"" if method == "HEAD" else b"plain")))
    sidecar = await start_sidecar(origin.url, route={"websocket": "bridge"})
    headers = {"Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13", **fields}
    answer = await ask(sidecar.url, method=method, headers=headers, version=version)
    assert answer.status == 200
    assert (await origin.request()).method == method


@pytest.mark.parametrize("connection", ["upgrade", "keep-alive, Upgrade", "Upgrade,keep-alive"])
async def test_what_asks_for_one(
    connection: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Firefox says ``keep-alive, Upgrade``; tokens have no case, and a body of no bytes is none."""
    sidecar = await start_sidecar((await start_origin(streams())).url, route={"websocket": "bridge"})
    await connect(sidecar.url, headers={"Connection": connection, "Upgrade": "WebSocket"})
    await connect(sidecar.url, headers={"Connection": connection, "Content-Length": "0"})
