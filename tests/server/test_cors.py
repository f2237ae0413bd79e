"""Cross-origin pages: what they may read, and the answers to their preflights."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from proxy.server import cors
from tests.conftest import StartOrigin, StartSidecar
from tests.support.client import ask
from tests.support.origin import reply, response

PAGE = "https://app.example"
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}


def allowed(headers: dict[str, str], origin: str | None, origins: list[str]) -> CIMultiDict[str]:
    """Return an answer's fields after ``allow`` has seen them."""
    fields = CIMultiDict(headers)
    request = make_mocked_request("GET", "/", headers={"Origin": origin} if origin is not None else {})
    cors.allow(request, fields, origins)
    return fields


def test_a_listed_origin_reads_the_answer_and_our_fields() -> None:
    """It is named, with credentials, in place of whatever the app said."""
    fields = allowed({"Access-Control-Allow-Origin": "*"}, PAGE, [PAGE])
    assert fields.getall("Access-Control-Allow-Origin") == [PAGE]
    assert fields["Access-Control-Allow-Credentials"] == "true"
    assert {"Stream-Id", "Link", "Retry-After"} <= set(fields["Access-Control-Expose-Headers"].split(", "))


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null", ""])
def test_other_origins_read_nothing_but_learn_that_it_varies(origin: str | None) -> None:
    """A cache must not give an answer that allows nobody to a page that is allowed."""
    fields = allowed({"Vary": "Accept"}, origin, [PAGE])
    assert dict(fields.items()).keys() == {"Vary"}
    assert fields.getall("Vary") == ["Accept", "Origin"]


def test_the_apps_own_word_passes_and_our_fields_become_readable() -> None:
    """Without ``origins`` the app speaks; where it allows a page, the page can read what a resume needs."""
    fields = allowed(
        {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "X-App, link"}, PAGE, []
    )
    assert fields["Access-Control-Allow-Origin"] == "*"
    assert fields["Access-Control-Expose-Headers"].split(", ") == [
        *("X-App", "link"),
        *(name for name in cors.EXPOSED if name != "Link"),
    ]


def test_an_answer_that_is_no_cors_one_stays_as_it_is() -> None:
    """Nothing is said to pages that nobody allowed."""
    assert not allowed({}, PAGE, [])


@pytest.mark.parametrize(
    ("method", "headers", "preflight"),
    [
        ("OPTIONS", PREFLIGHT, True),
        ("OPTIONS", {"Origin": PAGE}, False),
        ("OPTIONS", {"Access-Control-Request-Method": "POST"}, False),
        ("POST", PREFLIGHT, False),
    ],
)
def test_what_a_preflight_is(method: str, headers: dict[str, str], preflight: bool) -> None:
    """OPTIONS with an Origin and the method that is to follow."""
    assert cors.is_preflight(make_mocked_request(method, "/", headers=headers)) is preflight


async def test_a_preflight_of_a_listed_origin_is_answered_here(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """The app hears nothing of it; the methods are the route's, the headers those that were asked for."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route={"methods": ["POST"], "origins": [PAGE]})
    answer = await ask(
        sidecar.url,
        method="OPTIONS",
        headers={**PREFLIGHT, "Access-Control-Request-Headers": "authorization, last-event-id"},
    )
    assert (answer.status, answer.header("access-control-allow-origin")) == (204, PAGE)
    assert answer.header("access-control-allow-methods") == "POST"
    assert answer.header("access-control-allow-headers") == "authorization, last-event-id"
    assert answer.header("access-control-allow-credentials") == "true"
    assert not origin.requests


async def test_any_other_preflight_is_the_apps(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It finds the route of the request that is to follow, and the app answers it."""
    origin = await start_origin(
        reply(response(f"Access-Control-Allow-Origin: {PAGE}", status="204 No Content"))
    )
    sidecar = await start_sidecar(origin.url, route={"methods": ["POST"]})
    answer = await ask(sidecar.url, method="OPTIONS", headers=PREFLIGHT)
    assert (answer.status, answer.header("access-control-allow-origin")) == (204, PAGE)
    assert origin.requests[0].method == "OPTIONS"


async def test_a_preflight_for_a_method_that_is_not_served_is_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """It is the method that is to follow that counts."""
    origin = await start_origin(reply())
    sidecar = await start_sidecar(origin.url, route={"methods": ["GET"], "origins": [PAGE]})
    answer = await ask(sidecar.url, method="OPTIONS", headers=PREFLIGHT)
    assert (answer.status, answer.header("allow")) == (405, "GET")


async def test_a_page_can_read_why_it_was_refused(
    start_origin: StartOrigin, start_sidecar: StartSidecar
) -> None:
    """Our own errors carry the CORS fields of their route, and so does what the app answers."""
    origin = await start_origin(reply(response(status="500 Oops")))
    sidecar = await start_sidecar(origin.url, route={"max_body": 3}, origins=[PAGE])
    ours = await ask(sidecar.url, method="POST", headers={"Origin": PAGE}, body=b"four")
    theirs = await ask(sidecar.url, method="POST", headers={"Origin": PAGE}, body=b"two")
    assert (ours.status, theirs.status) == (413, 500)
    for answer in (ours, theirs):
        assert answer.headers("access-control-allow-origin") == [PAGE]
