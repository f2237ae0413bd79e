"""The command ``sse-sidecar``, run as its users run it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
from pathlib import Path

import pytest

from proxy import __version__
from tests.conftest import StartCommand, eventually
from tests.support.client import ask
from tests.support.command import PROJECT, Command, write_config
from tests.support.origin import PROGRAM_PATIENCE

GOOD = """\
listen: 127.0.0.1:0
upstreams:
  paid: {url: https://api.example.com, set_headers: {Authorization: "Bearer ${KEY}"}}
  app: {url: http://127.0.0.1:3000}
routes:
  - {name: chat, path: /v1/chat/completions, upstream: paid, methods: [POST]}
  - {name: rest, path: "/{tail:.*}", upstream: app}
"""

TRANSLATED = """\
upstreams: {app: {url: http://127.0.0.1:3000}}
defaults: {emit: unified}
routes:
  - {name: chat, path: /v1/chat/completions, upstream: app, websocket: bridge}
  - {name: claude, path: /v1/messages, upstream: app, emit: openai}
  - {name: rest, path: "/{tail:.*}", upstream: app, emit: passthrough}
"""

BAD = """\
listen: nowhere
upstreams:
  app: {url: ftp://example.com}
routes:
  - {name: rest, path: "/{tail:.*}", upstream: ap, hartbeat: 5s}
"""


async def done(start_command: StartCommand, *arguments: str | Path, **environ: str) -> tuple[int, Command]:
    """Run a command to its end; return its status and itself."""
    command = await start_command(*arguments, **environ)
    return await command.ended(), command


async def shell(line: str) -> str:
    """Run a line that a user would paste, for at most so long as it takes, and return its output."""
    process = await asyncio.create_subprocess_shell(
        line,
        cwd=PROJECT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, (line, output, errors)
    return output.decode()


# check


async def test_check_shows_the_routes_of_a_good_file(tmp_path: Path, start_command: StartCommand) -> None:
    """In their order, with what spends a credential; the credential itself is not shown."""
    file = tmp_path / "sidecar.yaml"
    file.write_text(GOOD)
    status, command = await done(start_command, "check", file, KEY="sk-secret")
    assert (status, command.errors) == (0, "")
    first, chat, rest = command.output.splitlines()
    assert first == f"{file}: good. 2 upstreams; routes in order:"
    assert chat.split() == [
        *("chat", "POST", "/v1/chat/completions", "→", "paid", "(spends", "a", "credential)")
    ]
    assert rest.split() == ["rest", "any", "method", "/{tail:.*}", "→", "app"]
    assert "sk-secret" not in command.output


async def test_check_counts_one_upstream_in_english(tmp_path: Path, start_command: StartCommand) -> None:
    """It is the first line that a new user sees."""
    file = write_config(tmp_path, "http://127.0.0.1:3000")
    _, command = await done(start_command, "check", file)
    assert command.output.splitlines()[0] == f"{file}: good. 1 upstream; routes in order:"


async def test_check_shows_in_which_form_a_route_leaves(tmp_path: Path, start_command: StartCommand) -> None:
    """Only where it is another one than came in; a form may come from the defaults."""
    file = tmp_path / "sidecar.yaml"
    file.write_text(TRANSLATED)
    status, command = await done(start_command, "check", file)
    assert (status, command.errors) == (0, "")
    assert [line.partition("→ ")[2] for line in command.output.splitlines()[1:]] == [
        "app, emit: unified, WebSocket: bridge",
        "app, emit: openai",
        "app",
    ]


@pytest.mark.parametrize("command", ["check", "serve"])
async def test_a_bad_file_is_refused_with_all_its_faults(
    tmp_path: Path, start_command: StartCommand, command: str
) -> None:
    """One line each: file, line, YAML path, what was found and expected. Nothing is started."""
    file = tmp_path / "sidecar.yaml"
    file.write_text(BAD)
    status, process = await done(start_command, command, file)
    assert (status, process.output) == (1, "")
    lines = process.errors.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{file}:line 1", "listen"],
        [f"{file}:line 3", "upstreams.app.url"],
        [f"{file}:line 5", "routes[0].hartbeat"],
        [f"{file}:line 5", "routes[0].upstream"],
    ]
    assert "did you mean `heartbeat`" in process.errors
    assert "did you mean `app`" in process.errors


@pytest.mark.parametrize("command", ["check", "serve"])
async def test_a_file_that_is_not_there_is_told(
    tmp_path: Path, start_command: StartCommand, command: str
) -> None:
    """On one line."""
    file = tmp_path / "none.yaml"
    status, process = await done(start_command, command, file)
    assert (status, process.output) == (1, "")
    assert process.errors == f"{file}:line 1: (file): cannot be read: No such file or directory\n"


async def test_an_unset_variable_is_told(tmp_path: Path, start_command: StartCommand) -> None:
    """A deploy without its key fails before it starts."""
    file = tmp_path / "sidecar.yaml"
    file.write_text(GOOD.replace("KEY", "SIDECAR_TEST_UNSET"))
    status, process = await done(start_command, "check", file)
    assert status == 1
    assert "SIDECAR_TEST_UNSET" in process.errors
    assert process.errors.count("\n") == 1


@pytest.mark.parametrize("name", ["llm.yaml", "app.yaml"])
async def test_the_examples_are_good(start_command: StartCommand, name: str) -> None:
    """Both example files pass their own check."""
    file = PROJECT / "config" / name
    status, process = await done(
        start_command, "check", file, OPENAI_API_KEY="sk-o", ANTHROPIC_API_KEY="sk-a"
    )
    assert (status, process.errors) == (0, "")


# schema, version, usage


async def test_the_schema_is_the_one_in_the_repository(start_command: StartCommand) -> None:
    """``make schema`` has been run: byte for byte."""
    status, process = await done(start_command, "schema")
    assert status == 0
    assert process.output == (PROJECT / "config/schema.json").read_text("utf-8")


async def test_version(start_command: StartCommand) -> None:
    """``python -m proxy`` is the same command, and knows its version."""
    status, process = await done(start_command, "--version")
    assert (status, process.output) == (0, f"sse-sidecar {__version__}\n")


async def test_the_version_is_said_once(start_command: StartCommand) -> None:
    """The package's version is the distribution's."""
    assert f'version = "{__version__}"' in (PROJECT / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize("arguments", [[], ["serve"], ["nonsense"], ["demo", "--listen", "unix:/tmp/x"]])
async def test_wrong_usage_is_told(start_command: StartCommand, arguments: list[str]) -> None:
    """With status 2, and how it would be right."""
    status, process = await done(start_command, *arguments)
    assert (status, process.output) == (2, "")
    assert process.errors.startswith("usage: sse-sidecar")


async def test_help_names_every_command(start_command: StartCommand) -> None:
    """Each with what it does."""
    status, process = await done(start_command, "--help")
    assert status == 0
    for command in ("serve", "demo", "check", "schema", "chat"):
        assert re.search(rf"^    {command} +\w", process.output, re.MULTILINE)


# demo


@pytest.mark.skipif(not shutil.which("curl"), reason="LEFT OUT: the demo's lines: no curl on PATH")
async def test_the_demo_prints_lines_that_work(start_command: StartCommand) -> None:
    """Each of them, as it is printed; all at once, since they spend their time waiting."""
    demo = await start_command("demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    await eventually(lambda: "Ctrl-C ends it." in demo.output, "the lines to try", PROGRAM_PATIENCE)
    text = demo.output.replace("\\\n", " ")
    chat, client, thinking, unified, feed, operator = [
        line.strip()
        for line in text.splitlines()
        if re.match(r"  \S*(curl|python\S* -m proxy|sse-sidecar) ", line)
    ]

    faster = thinking.replace("first_delay=12", "first_delay=6")
    assert faster != thinking
    answered, joined, waited, said, events, resumed = await asyncio.gather(
        shell(f"{chat} --silent --max-time 60"),
        shell(client),
        shell(f"{faster} --silent --max-time 60"),
        shell(f"{unified} --silent --max-time 60"),
        shell(f"{feed} --silent --max-time 4 || true"),
        shell(f"{feed} --silent --max-time 4 -H 'Last-Event-ID: 5' || true"),
    )
    assert answered.startswith("id: ")
    assert answered.endswith("data: [DONE]\n\n")
    assert "gap-free" in joined
    assert "NOT gap-free" not in joined
    assert waited.startswith(": ping\n")
    assert waited.endswith("data: [DONE]\n\n")
    assert re.search(r"^event: start\n.*^event: done\n", said, re.MULTILINE | re.DOTALL)
    assert re.search(r"^id: 1$", events, re.MULTILINE)
    assert re.search(r"^id: 6$", resumed, re.MULTILINE)

    seen = await shell(operator.replace("curl ", "curl --silent "))
    assert '"streams"' in seen
    assert "sidecar_streams_ended_total" in seen

    demo.signal(signal.SIGINT)
    assert await demo.ended() == 0


async def test_the_demo_tells_of_a_taken_port(start_command: StartCommand) -> None:
    """On one line, with status 1, and nothing left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, process = await done(start_command, "demo", "--listen", address, "--admin", "127.0.0.1:0")
    assert (status, process.output) == (1, "")
    assert process.errors == f"sse-sidecar: {address}: cannot listen here: Address already in use\n"


async def test_the_demo_without_its_extra_says_what_to_install(
    tmp_path: Path, start_command: StartCommand
) -> None:
    """Somebody who installed ``sse-sidecar`` alone gets one line, not a traceback."""
    (tmp_path / "openai.py").write_text("raise ModuleNotFoundError(\"No module named 'openai'\")\n")
    status, process = await done(start_command, "demo", PYTHONPATH=str(tmp_path))
    assert status == 1
    assert process.errors.count("\n") == 1
    assert "pip install 'sse-sidecar[openai]'" in process.errors


# serve


async def test_serve_serves(tmp_path: Path, start_command: StartCommand) -> None:
    """It says where, in JSON where nobody looks, and answers there."""
    file = tmp_path / "sidecar.yaml"
    file.write_text(GOOD.replace("http://127.0.0.1:3000", "http://127.0.0.1:1"))
    serve = await start_command("serve", file, KEY="sk-secret")
    answer = await ask(await serve.url(), "/")
    assert answer.status == 502
    assert json.loads(await answer.body())["route"] == "rest"
    serve.signal(signal.SIGTERM)
    assert await serve.ended() == 0
    assert [line["event"] for line in serve.log()] == [
        *("listening", "upstream failed", "request", "draining", "stopped")
    ]
