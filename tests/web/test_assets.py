"""What browsers get: every file of ``proxy.web`` with its type and a validator, and nothing else."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from proxy.web import CONTENT_TYPES, asset

WEB = Path(__file__).parents[2] / "proxy" / "web"
FILES = sorted(path.name for path in WEB.iterdir() if path.suffix in CONTENT_TYPES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_handed_out_as_it_is(name: str) -> None:
    """Its bytes, the type that its ending means, and an ETag that is of these bytes."""
    found = asset(name)
    assert found is not None
    assert found.body == (WEB / name).read_bytes()
    assert found.content_type == CONTENT_TYPES[Path(name).suffix]
    assert found.etag == f'"{sha256(found.body).hexdigest()[:20]}"'


def test_what_apps_may_use_is_there() -> None:
    """The module is JavaScript to a browser; its types are text."""
    script, types = asset("client.js"), asset("client.d.ts")
    assert script is not None
    assert types is not None
    assert (script.content_type, types.content_type) == (
        "text/javascript; charset=utf-8",
        "text/plain; charset=utf-8",
    )


def test_files_differ_in_their_validators() -> None:
    """A strong validator is never shared: RFC 9110 §8.8.1."""
    found = [asset(name) for name in FILES]
    assert len({each.etag for each in found if each is not None}) == len(FILES)


@pytest.mark.parametrize(
    "name",
    ["", "__init__.py", "serving.py", "client", "/client.js", "./client.js", "../web/client.js", "CLIENT.JS"],
)
def test_nothing_else_is_handed_out(name: str) -> None:
    """Code of the server, other spellings of a name, and names with a path in them are no assets."""
    assert asset(name) is None
