"""Bytes that are nearly right: well-formed ones, mutated at random, always the same for one seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

#: What means something to the parsers that noise is for.
SEPARATORS = b"\r\n|\n|\r|\n\n|\r\n\r\n|\0| |\t|:|: |,|;|\r\n ".split(b"|")
EVENT_FIELDS = b"data:|data: x\n\n|id: 1\n|id:\0|retry: 1\n|event: e\n|: c\n\n|\xef\xbb\xbf".split(b"|")
CHARACTERS = b"\xff|\xc3|\xc3\xa9|\xf0\x9f\x98\x80|\xe2\x80\xa8|0|-1|99999999999999999999|ffffffff".split(
    b"|"
)
HEADER_FIELDS = (
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Expect: 100-continue\r\n",
    b"Host: x\r\n",
    b"Last-Event-ID: x.1\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
)
PARTS = b"0\r\n\r\n|5\r\nhello\r\n|..|/../|?|#|//|*|%|%2e".split(b"|")
WORDS = (*SEPARATORS, *EVENT_FIELDS, *CHARACTERS, *HEADER_FIELDS, *PARTS)

Mutation = Callable[[random.Random, bytes], bytes]


def _insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(WORDS) + data[at:]


def _delete(rng: random.Random, data: bytes) -> bytes:
    start, end = _slice(rng, data)
    return data[:start] + data[end:]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start, end = _slice(rng, data)
    return data[:end] + data[start:end] * rng.randrange(1, 4) + data[end:]


def _flip(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _slice(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 1, 2, 5, 20)))


MUTATIONS: Sequence[Mutation] = (_insert, _insert, _insert, _delete, _repeat, _flip, _cut)


def mutated(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """Return one of ``samples`` after up to eight mutations, and at times none."""
    data = rng.choice(samples)
    for _ in range(rng.choice((0, 1, 1, 2, 2, 4, 8))):
        data = rng.choice(MUTATIONS)(rng, data)
    return data


def reads(rng: random.Random, data: bytes) -> Iterator[bytes]:
    """Yield ``data`` in pieces of random length, many of them of a single byte."""
    while data:
        size = rng.choice((1, 1, 2, 3, 7, 40, 400))
        yield data[:size]
        data = data[size:]
