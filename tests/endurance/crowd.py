"""Many streams at once, each followed by one to three clients that lose their connections.

They come by SSE and by WebSocket, often both to the same stream.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence

from proxy.demo import expected_text
from proxy.demo.speech import WORDS
from tests.endurance.follower import Asked, Follower, Tally, plan

#: How an upstream may pace its events, as the provider's query: in bursts, steadily, with a pause …
PACES = (
    "interval=0&burst=16",
    "interval=0",
    "interval=0.002&comments=1",
    "interval=0.005&newline=crlf",
    "interval=0.01&split=7",
    "interval=0.005&pause_at=9&pause=0.5",
    "interval=0.01&first_delay=0.2&encoding=gzip",
    "interval=0&size=3000",
)

#: What ``any_stream`` asks of a sidecar, as routes: the feed takes GETs only, and so its bridge sends GETs.
ROUTES: Sequence[Mapping[str, object]] = (
    {"name": "feed", "path": "/api/events", "methods": ["GET"]},
    {"name": "all", "path": "/{tail:.*}"},
)

#: Streams that a client begins under a key, losing the first answer before its head.
KEYED_EVERY = 5


def routes(
    upstream: str, own: Mapping[str, Mapping[str, object]] | None = None, **policies: object
) -> list[dict[str, object]]:
    """Return routes for such a crowd, all with these policies, and some with their ``own`` by name."""
    common = {"upstream": upstream, "websocket": "bridge", **policies}
    return [{**route, **common, **(own or {}).get(str(route["name"]), {})} for route in ROUTES]


def any_stream(rng: random.Random, number: int) -> Asked:
    """Return a request for a stream of some kind, length and pace; about half begin over WebSocket."""
    tokens = rng.randrange(30, 200)
    pace = rng.choice(PACES)
    prompt = f"stream {number}"
    kind = number % 4
    text, bridge = expected_text(tokens), bool((number ^ number >> 2) & 1)  # half of each kind
    if kind == 2:
        body = json.dumps({"prompt": prompt}).encode()
        return Asked("POST", f"/api/chat?tokens={tokens}&{pace}", body, tokens + 1, text, bridge=bridge)
    if kind == 3:
        text = "".join(WORDS[index % len(WORDS)] for index in range(1, tokens + 1))
        target = f"/api/events?count={tokens}&{pace}"
        return Asked("GET", target, None, tokens, text, own_ids=False, bridge=bridge)
    messages = [{"role": "user", "content": prompt}]
    body = json.dumps({"model": "demo", "stream": True, "messages": messages}).encode()
    target, key = f"/v1/chat/completions?tokens={tokens}&{pace}", _key(rng, number)
    return Asked("POST", target, body, tokens + 3, text, headers=key, bridge=bridge and not key)


def _key(rng: random.Random, number: int) -> tuple[tuple[str, str], ...]:
    if number % KEYED_EVERY:
        return ()
    return (("Authorization", "Bearer demo"), ("Idempotency-Key", f"{rng.getrandbits(128):032x}"))


async def follow_stream(url: str, rng: random.Random, number: int, quota: int, tally: Tally) -> None:
    """Begin one stream and follow it through ``quota`` resumes, shared among its readers.

    Every reader must end with the same blocks, all of them, in order, and with the text that was said.
    """
    asked = any_stream(rng, number)
    shares = _shares(rng, quota)
    first, *others = (
        Follower(url, asked, plan(rng, asked, share), tally, narrow=rng.random() < 0.3) for share in shares
    )
    async with asyncio.TaskGroup() as readers:
        readers.create_task(first.begin(twice=bool(asked.headers)))
        stream = await first.stream
        for other in others:
            readers.create_task(other.attach(stream, bridge=rng.random() < 0.5))
    assert first.text() == asked.text
    for other in others:
        assert other.blocks == first.blocks


async def follow_streams(url: str, seed: int, *, streams: int, resumes: int) -> Tally:
    """Follow ``streams`` streams at once, with ``resumes`` resumes in all."""
    tally = Tally()
    quotas = [resumes // streams + (number < resumes % streams) for number in range(streams)]
    async with asyncio.TaskGroup() as group:
        for number, quota in enumerate(quotas):
            rng = random.Random(f"{seed}/{number}")
            group.create_task(follow_stream(url, rng, number, quota, tally))
    return tally


def _shares(rng: random.Random, quota: int) -> list[int]:
    readers = min(rng.randrange(1, 4), quota)
    shares = [quota // readers] * readers
    shares[0] += quota - sum(shares)
    return shares
