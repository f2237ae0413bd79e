"""Which header fields pass, and whose word on the client is believed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from proxy.server.headers import Origin, Peers, end_to_end, forwarding
from tests.conftest import StartOrigin, StartSidecar, config_for
from tests.support.client import ask, read_answer
from tests.support.origin import Connection, reply

#: What a client can say of where it comes from.
CLAIMS = {
    "Forwarded": "for=1.2.3.4;host=evil.example;proto=https",
    "X-Forwarded-For": "1.2.3.4",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "443",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Client-Cert": "Subject=admin",
    "X-Real-IP": "1.2.3.4",
}


def said(connection: Connection) -> dict[str, str]:
    """What a request said of where it comes from."""
    names = {name.lower() for name in CLAIMS}
    return {name: ", ".join(values) for name, values in connection.headers.items() if name in names}


# Fields


@pytest.mark.parametrize(
    ("connection", "gone"),
    [
        (["close"], set()),
        (["X-Hop"], {"x-hop"}),
        (["keep-alive, x-hop ,X-OTHER"], {"x-hop", "x-other"}),
        (["x-hop", "x-other"], {"x-hop", "x-other"}),
        (["host, content-length, x-hop"], {"x-hop"}),
        (["", ",, ,"], set()),
    ],
)
def test_connection_names_what_ends_here(connection: list[str], gone: set[str]) -> None:
    """Every field that any Connection line names is removed, but for those that frame or address."""
    fields = CIMultiDict({"Host": "x", "Content-Length": "1", "X-Hop": "1", "X-Other": "1"})
    fields.extend(("Connection", value) for value in connection)
    kept = {name.lower() for name in end_to_end(fields)}
    assert kept == {"host", "content-length", "x-hop", "x-other"} - gone


def test_repeated_fields_stay_repeated() -> None:
    """Order, number and spelling stay."""
    fields = CIMultiDict([("X-A", "1"), ("Set-Cookie", "a"), ("x-a", "2"), ("set-cookie", "b")])
    assert list(end_to_end(fields, drop=("x-b",)).items()) == [
        ("X-A", "1"),
        ("Set-Cookie", "a"),
        ("x-a", "2"),
        ("set-cookie", "b"),
    ]


# Peers


@pytest.mark.parametrize(
    ("names", "address", "trusted"),
    [
        ([], "127.0.0.1", False),
        ([], None, False),
        (["unix"], None, True),
        (["unix"], "127.0.0.1", False),
        (["10.0.0.0/8"], "10.255.0.1", True),
        (["10.0.0.0/8"], "11.0.0.1", False),
        (["::1", "192.0.2.1"], "::1", True),
        (["::1", "192.0.2.1"], "192.0.2.1", True),
        (["::/0"], "192.0.2.1", False),
        (["0.0.0.0/0"], "no-address", False),
    ],
)
def test_peers_are_trusted_by_address(names: list[str], address: str | None, trusted: bool) -> None:
    """Addresses, networks and the word ``unix``; anything unreadable is a stranger."""
    assert Peers.of(names).trusts(address) is trusted


@pytest.mark.parametrize(
    ("peer", "node"), [("10.0.0.1", "10.0.0.1"), ("::1", '"[::1]"'), ("unix", "unknown")]
)
def test_a_trusted_peers_forwarded_is_continued(peer: str, node: str) -> None:
    """RFC 7239 §4: a proxy adds its own element; §6: an IPv6 address stands in brackets and quotes."""
    request = make_mocked_request("GET", "/", headers={"Forwarded": "for=192.0.2.7"})
    origin = Origin("192.0.2.7", f"192.0.2.7, {peer}", "http", "x", trusted=True)
    assert forwarding(origin, request)["Forwarded"] == f"for=192.0.2.7, for={node};proto=http"


# Over sockets


async def test_a_stranger_is_not_believed(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """The attack: a client that claims another address, host or certificate gets past an app's checks."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    await ask(sidecar.url, headers={"Host": "here", **CLAIMS})
    assert said(origin.requests[0]) == {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": "here",
        "x-forwarded-proto": "http",
    }


async def test_a_trusted_peer_is_believed(start_origin: StartOrigin, start_sidecar: StartSidecar) -> None:
    """What an edge says of its client is passed on, the edge's own address added."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, trusted_peers=["127.0.0.0/8"])
    await ask(sidecar.url, headers={"Host": "here", **CLAIMS})
    assert said(origin.requests[0]) == {
        **{name.lower(): value for name, value in CLAIMS.items()},
        "x-forwarded-for": "1.2.3.4, 127.0.0.1",
        "forwarded": f"{CLAIMS['Forwarded']}, for=127.0.0.1;proto=http",
    }


@pytest.mark.parametrize(
    ("claimed", "client"),
    [
        ([], "127.0.0.1"),
        (["192.0.2.7"], "192.0.2.7"),
        (["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        (["6.6.6.6, 192.0.2.7, 10.1.1.1"], "192.0.2.7"),
        (["6.6.6.6", "192.0.2.7, 10.1.1.1"], "192.0.2.7"),
        (["10.2.2.2, 10.1.1.1"], "127.0.0.1"),
    ],
)
async def test_the_client_is_the_nearest_address_that_no_trusted_peer_has(
    claimed: list[str], client: str, start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The attack: an invented address in front of the list, which an edge only appends to."""

    async def script(connection: Connection) -> None:
        await connection.start_stream()
        await connection.gone()

    origin = await start_origin(script)
    sidecar = await start_sidecar(origin.url, trusted_peers=["127.0.0.0/8", "10.0.0.0/8"])
    await ask(sidecar.url, headers=[("X-Forwarded-For", value) for value in claimed])
    (relay,) = sidecar.hub.running
    assert relay.birth.client == client


async def test_no_host_is_made_up_for_a_client_that_sent_none(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """HTTP/1.0 needs no Host; then nothing is said of it."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url)
    await ask(sidecar.url, headers=[("host", "")], version="HTTP/1.0")
    assert said(origin.requests[0]).keys() == {"x-forwarded-for", "x-forwarded-proto"}


@pytest.mark.parametrize(("trusted", "chain"), [([], None), (["unix"], "1.2.3.4")])
async def test_a_unix_socket_has_no_address(
    trusted: list[str],
    chain: str | None,
    tmp_path: Path,
    start_origin: StartOrigin,
    start_sidecar: StartSidecar,
) -> None:
    """A peer on a unix socket is believed only if ``unix`` is trusted, and is no address itself."""
    origin = await start_origin(reply())
    path = tmp_path / "s"
    await start_sidecar(config_for(origin.url, listen=f"unix:{path}", trusted_peers=trusted))
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
    assert (await read_answer(reader, writer)).status == 200
    writer.close()
    assert said(origin.requests[0]).get("x-forwarded-for") == chain
