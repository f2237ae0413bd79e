"""The members of a JSON object, each as its client wrote it."""

from __future__ import annotations

import pytest

from proxy.server.json_object import members, written


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", b"{}"),
        (
            b' { "a" : 1.0, "b":[1,  2], "\\u00e9": "\\u00e9" } ',
            b'{"a":1.0,"b":[1,  2],"\\u00e9":"\\u00e9"}',
        ),
        (b'{"a":12345678901234567890123,"b":1e5}', b'{"a":12345678901234567890123,"b":1e5}'),
        (b'{"a":1,"b":2,"a":3}', b'{"a":3,"b":2}'),
        # what msgspec does not read, and others do
        (rb'{"a":"\ud83d","\ud83d":1}', rb'{"a":"\ud83d","\ud83d":1}'),
        (b'\xef\xbb\xbf{"a":1}', b'{"a":1}'),
        (b'{"a":NaN}', b'{"a":NaN}'),
    ],
    ids=["empty", "blanks", "numbers", "twice", "half-emoji", "byte-order-mark", "nan"],
)
def test_an_object_is_written_as_it_was_read(body: bytes, expected: bytes) -> None:
    """No number loses digits, and no text its escapes."""
    found = members(body)
    assert found is not None
    assert written(found) == expected


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"1", b'"a"', b"null", b"{", b'{"a":}', b"\xff", b'{"a":' * 100_000, b"[" * 100_000]
)
def test_anything_else_has_no_members(body: bytes) -> None:
    """Nothing raises."""
    assert members(body) is None
