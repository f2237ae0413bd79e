"""``sse-sidecar doctor`` as its users run it: arguments, exit status, output."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import structlog
from yarl import URL

from proxy.demo import Running
from proxy.doctor.arguments import add_arguments
from proxy.doctor.command import doctor, examination_of, request_of
from proxy.doctor.dial import Dialer
from proxy.doctor.examine import CHECKS
from proxy.doctor.finding import Verdict
from proxy.doctor.sdk import try_sdk
from proxy.server.app import Sidecar
from tests.conftest import StartCommand, StartOrigin
from tests.support.command import PROJECT
from tests.support.script import streams


def parsed(*arguments: str) -> argparse.Namespace:
    """The arguments, as the command gets them."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_without_more_it_asks_as_an_event_source_does() -> None:
    """GET, and a browser's codings."""
    request = request_of(parsed("http://app.example/events"))
    assert (request.method, request.body) == ("GET", None)
    assert request.field("Accept") == "text/event-stream"
    assert request.field("Accept-Encoding") == "gzip, deflate, br"


def test_a_url_without_a_scheme_is_http() -> None:
    """As with curl."""
    assert request_of(parsed("localhost:8080/api/events?x=1")).url == URL(
        "http://localhost:8080/api/events?x=1"
    )


@pytest.mark.parametrize(
    ("data", "kind"), [('{"a":1}', "application/json"), ("a=1", "application/x-www-form-urlencoded")]
)
def test_a_body_makes_it_a_post(data: str, kind: str) -> None:
    """As with curl, but that JSON is called JSON."""
    request = request_of(parsed("http://app.example/", "-d", data))
    assert (request.method, request.body) == ("POST", data.encode())
    assert request.field("Content-Type") == kind


def test_curls_spellings_are_understood(tmp_path: Path) -> None:
    """-X, -H, -d @file, -k; what is given wins over what would be added."""
    file = tmp_path / "body"
    file.write_bytes(b"\x00\xff")
    line = ("http://a.example/", "-X", "PUT", "-H", "Accept: x/y", "--header", "A:b", "-d", f"@{file}", "-k")
    options = parsed(*line)
    request = request_of(options)
    assert (request.method, request.body) == ("PUT", b"\x00\xff")
    assert [value for name, value in request.fields if name.lower() == "accept"] == ["x/y"]
    assert request.field("A") == "b"
    assert examination_of(options, request).dialer.insecure


def test_openai_makes_the_sdks_request() -> None:
    """The URL is the SDK's base URL."""
    options = parsed("http://a.example/v1/?x=1", "--openai", "gpt-5", "--api-key", "sk-1")
    request = request_of(options)
    assert request.url == URL("http://a.example/v1/chat/completions?x=1")
    assert json.loads(request.body or b"")["stream"] is True
    assert request.field("Authorization") == "Bearer sk-1"


@pytest.mark.parametrize(
    ("direct", "origin"),
    [
        ("http://b.example/v1", "http://b.example/v1/chat/completions"),
        ("http://b.example/?x=2", "http://b.example/chat/completions?x=2"),
        ("http://b.example", "http://b.example/llm/v1/chat/completions?x=1"),
    ],
    ids=["path", "query", "host"],
)
def test_with_openai_the_origin_is_a_base_url_too(direct: str, origin: str) -> None:
    """Or both would be asked for different things; without a path it gets that of the URL."""
    options = parsed("http://a.example/llm/v1?x=1", "--openai", "gpt-5", "--direct", direct)
    assert examination_of(options, request_of(options)).origin == URL(origin)


@pytest.mark.parametrize(
    "line",
    [
        ["ftp://a.example/"],
        ["http://"],
        ["http://a.example/", "-H", "no-colon"],
        ["http://a.example/", "-H", "A: b\r\nC: d"],
        ["http://a.example/", "--seconds", "0"],
        ["http://a.example/", "--idle", "soon"],
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(line: list[str]) -> None:
    """Status 2, before anything is asked."""
    with pytest.raises(SystemExit) as ending:
        parsed(*line)
    assert ending.value.code == 2


@pytest.mark.parametrize(
    "line",
    [
        ["http://a.example/", "--openai", "m", "-d", "{}"],
        ["http://me:secret@a.example/"],
        ["http://a.example/", "-d", "@/nowhere"],
    ],
)
def test_arguments_that_contradict_each_other_are_refused(line: list[str]) -> None:
    """And say why, without a secret."""
    with pytest.raises((ValueError, OSError)) as failure:
        request_of(parsed(*line))
    assert "secret" not in str(failure.value)


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    """With its name."""
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    options = parsed("https://a.example/", "--cacert", str(file))
    with pytest.raises(ValueError, match=r"ca\.pem"):
        examination_of(options, request_of(options))


def test_the_page_tells_of_every_check_and_every_argument() -> None:
    """docs/doctor.md leaves nothing out."""
    page = (PROJECT / "docs" / "doctor.md").read_text("utf-8")
    assert all(f"| `{check}` |" in page for check in CHECKS)
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    names = [action.option_strings for action in parser._actions if action.option_strings]
    assert all(any(f"`{name}" in page for name in spellings) for spellings in names)


async def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; return its status, and what it writes to stdout and stderr."""
    status = await doctor(parsed(*arguments))
    return status, *capsys.readouterr()


async def test_a_good_stream_is_status_0_and_every_check_has_its_line(
    start_command: StartCommand, provider: Running
) -> None:
    """As a process of its own; without a terminal there is no colour."""
    url = f"{provider.url}/v1/chat/completions?interval=0.01&tokens=20"
    body = '{"model":"m","stream":true,"messages":[]}'
    command = await start_command("doctor", url, "-d", body, "-H", "Authorization: Bearer sk-hidden")
    assert await command.ended() == 0, command.output + command.errors
    lines = command.output.splitlines()
    assert lines[0] == f"{provider.url}/v1/chat/completions?interval=…&tokens=…"
    checks = [line.split()[1] for line in lines if line[:6].strip() in ("ok", "–")]
    assert checks == [check for check in CHECKS if check not in ("cors", "sdk")]
    assert lines[-1] == "0 faults, 0 warnings; 2 requests, at most 2 of them seen by the upstream"
    assert "\x1b" not in command.output
    assert "sk-hidden" not in command.output


async def test_a_fault_is_status_1_and_json_tells_it(
    capsys: pytest.CaptureFixture[str], start_origin: StartOrigin
) -> None:
    """One document, whatever happens."""
    origin = await start_origin(streams(b'data: {"choices":[]}\n\n'))
    status, output, _ = await told(capsys, f"{origin.url}/chat/completions", "--json")
    assert status == 1
    document = json.loads(output)
    assert document["verdict"] == "fault"
    faults = [each for each in document["findings"] if each["verdict"] == "fault"]
    assert [each["check"] for each in faults] == ["end"]
    assert faults[0]["mend"]
    assert document["requests"] == {"all": 1, "upstream": 1}


async def test_nobody_there_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    """There was no stream to judge; the lines and the document say so."""
    status, output, _ = await told(capsys, "http://127.0.0.1:1/", "--json")
    assert status == 2
    assert json.loads(output)["verdict"] == "unjudged"
    status, output, _ = await told(capsys, "http://127.0.0.1:1/")
    assert status == 2
    assert output.endswith("no stream to judge; 1 request, at most 0 of them seen by the upstream\n")


async def test_wrong_use_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    """And one line says why."""
    status, _, errors = await told(capsys, "http://a.example/", "--openai", "m", "-d", "{}")
    assert status == 2
    assert errors == "sse-sidecar doctor: --openai makes the request itself: without -d and -X\n"


async def test_openais_sdk_has_the_last_word(capsys: pytest.CaptureFixture[str], provider: Running) -> None:
    """One request is looked at closely, one is made by the SDK, and a GET asks for a WebSocket."""
    url = f"{provider.url}/v1?interval=0"
    status, output, _ = await told(capsys, url, "--openai", "demo", "--api-key", "sk-hidden", "--json")
    assert status == 0, output
    document = json.loads(output)
    sdk = document["findings"][-1]
    assert (sdk["check"], sdk["verdict"], sdk["evidence"]["finish_reason"]) == ("sdk", "ok", "stop")
    assert document["requests"]["upstream"] == 3
    assert "sk-hidden" not in output


async def test_openais_requests_are_compared_at_the_origin(
    capsys: pytest.CaptureFixture[str], provider: Running, sidecar: Sidecar
) -> None:
    """Two base URLs: the stream, and the WebSocket, are asked for at the same path."""
    base, origin = f"{sidecar.url}/v1?interval=0.01", f"{provider.url}/v1?interval=0.01"
    with structlog.testing.capture_logs():  # the sidecar's lines are no part of what the doctor prints
        status, output, _ = await told(capsys, base, "--openai", "demo", "--direct", origin, "--json")
    assert status == 0, output
    found = {each["check"]: each for each in json.loads(output)["findings"]}
    assert found["buffering"]["evidence"]["source"] == "direct"
    asked = [request.path for request in provider.requests if request.streaming]
    assert asked == ["/v1/chat/completions"] * 3


@pytest.mark.parametrize(
    ("misbehaviour", "word"),
    [("error_at=3", "APIError"), ("drop_at=3", "raised"), ("truncate_at=3", "half an answer, and no error")],
)
async def test_what_the_sdk_raises_is_told_and_what_it_should_have_raised(
    provider: Running, misbehaviour: str, word: str
) -> None:
    """A stream that is cut cleanly is half an answer without an error."""
    url = URL(f"{provider.url}/v1?interval=0&{misbehaviour}")
    finding = await try_sdk(url, "demo", "none", (), Dialer().context(("http/1.1",)))
    assert finding.verdict is Verdict.FAULT
    assert word in finding.message
