"""What ``sse-sidecar demo`` says when it is ready, and that it is true."""

from __future__ import annotations

import re

from tests.conftest import StartCommand, eventually
from tests.support.client import ask
from tests.support.origin import PROGRAM_PATIENCE


async def test_the_first_thing_to_try_is_a_page(start_command: StartCommand) -> None:
    """Two addresses for a browser stand before all lines for a shell, and both answer with HTML."""
    command = await start_command("demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    await eventually(lambda: "Ctrl-C" in command.output, "the lines to try", PROGRAM_PATIENCE)
    before_lines, _, _ = command.output.partition("curl")
    playground, operators = re.findall(r"^  (http://\S+/\S*) {3,}", before_lines, re.MULTILINE)
    assert playground.endswith("/_playground")
    for address, named in ((playground, b"<title>Playground"), (operators, b"<title>Streams")):
        origin, slash, path = address.rpartition("/")
        answer = await ask(origin, slash + path, headers={"Accept": "text/html"})
        assert (answer.header("content-type") or "").startswith("text/html")
        assert named in await answer.body()
        assert (answer.header("content-security-policy") or "").startswith("default-src 'self';")


async def test_looking_at_the_page_leaves_no_trace(start_command: StartCommand) -> None:
    """The provider's ledger is about what the page asks for, not about the page."""
    command = await start_command("demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    url = await command.url()
    assert (await ask(url, "/_playground/playground.js")).status == 200
    assert (await ask(url, "/_playground/none.js")).status == 404
    assert (await ask(url, "/_playground/")).header("location") == "../_playground"
    assert await (await ask(url, "/_provider/requests")).json() == []
