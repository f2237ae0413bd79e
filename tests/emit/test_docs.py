"""docs/emit.md, held against the program: its examples are what is written, and what it shows works."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest

from proxy.demo import Running, expected_text
from proxy.dialects import DIALECTS
from proxy.emit import EMITS
from tests.conftest import config_for, sidecars
from tests.emit.telling import NODE, PATIENCE
from tests.support.node import node_22
from tests.test_docs import DOCS, fences, names, table
from tests.transcripts import TRANSCRIPTS, translated

PAGE = DOCS / "emit.md"


def shown(language: str, mark: str = "") -> str:
    """Return the only block of the page in this language, with this mark."""
    (fence,) = [each for each in fences(PAGE) if (each.language, each.mark) == (language, mark)]
    return fence.text


def shortened(stream: str) -> str:
    """Return a stream of chunks as the page shows it: with what all of them begin with in the first only."""
    repeated = re.search(r'"id".*?(?="choices")', stream)
    assert repeated
    first, _, rest = stream.partition("\n\n")
    return f"{first}\n\n{rest.replace(repeated[0], '…,')}"


def test_the_examples_are_what_is_written() -> None:
    """Both are the translation of the transcript that the page names, to the last byte."""
    row = TRANSCRIPTS["anthropic/tool-use-cached"]
    assert f"{row.id}.sse" in PAGE.read_text("utf-8")
    openai, ag_ui = (translated(row, form).decode() for form in ("openai", "ag-ui"))
    assert shown("text", "openai") == shortened(openai)
    assert shown("text", "agui") == ag_ui


def test_every_dialect_and_every_form_is_on_the_page() -> None:
    """Its tables name all there are."""
    dialects = table(PAGE, "What comes in", "dialect").rows
    assert {names(row[0])[0] for row in dialects} == DIALECTS.keys()
    forms = table(PAGE, "What goes out", "form").rows
    assert {names(row[0])[0] for row in forms} == {"passthrough", *EMITS}
    assert {*names(" ".join(table(PAGE, "What goes where", "part").header))} == EMITS.keys()


@pytest.mark.parametrize("form", ["openai", "ag-ui"])
async def test_the_code_works(form: str, provider: Running) -> None:
    """It prints the whole answer of a provider that speaks Anthropic's dialect."""
    async with sidecars() as start:
        sidecar = await start(config_for(provider.url, route={"emit": form}))
        said, complained = await run(form, sidecar.url)
    assert complained == ""
    assert said.rstrip("\n") == expected_text()


async def run(form: str, url: str) -> tuple[str, str]:
    """Run the page's code for a form against a sidecar; return what it says, and of what it complains."""
    command = (
        [sys.executable, "-c", shown("python")]
        if form == "openai"
        else [str(node_22(NODE)), "--input-type=module", "-e", shown("js")]
    )
    command[-1] = command[-1].replace("http://127.0.0.1:8080", url)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=NODE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        said, complained = await process.communicate()
    return said.decode(), complained.decode()
