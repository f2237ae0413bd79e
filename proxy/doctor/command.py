"""``sse-sidecar doctor``: from its arguments to its exit status."""

from __future__ import annotations

import argparse
import os
import shutil
import ssl
import sys
from contextlib import aclosing
from pathlib import Path

from yarl import URL

from proxy.doctor.dial import USER_AGENT, Dialer, Request
from proxy.doctor.examine import Doctor, Examination
from proxy.doctor.finding import Finding, Verdict
from proxy.doctor.report import Document, Lines, Report, Shade, wants_colour
from proxy.doctor.sdk import completion_body, try_sdk
from proxy.doctor.watch import Patience

#: Exit statuses.
SOUND, FAULTY, UNJUDGED = 0, 1, 2

#: What a browser offers; a stream should come without any of it.
CODINGS = "gzip, deflate, br"

#: Bytes of a body that is read from a file.
MAX_BODY_BYTES = 64 * 1024 * 1024


async def doctor(options: argparse.Namespace) -> int:
    """Examine, write the report to stdout, and return the exit status."""
    try:
        request = request_of(options)
        examination = examination_of(options, request)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"sse-sidecar doctor: {error}\n")
        return UNJUDGED
    shade = Shade(request)
    report = _report(options, shade)
    patient = Doctor(examination)
    findings: list[Finding] = []
    report.begin(shade.url(request.url))
    async with aclosing(patient.findings()) as found:
        async for finding in found:
            shade.hide_stream(patient.stream_id)
            findings.append(finding)
            report.tell(finding)
    asker = patient.asker
    if options.openai is not None:
        trust = examination.dialer.context(("http/1.1",))
        finding = await try_sdk(options.url, options.openai, _key(options), _fields(options), trust)
        asker.requests, asker.upstream = asker.requests + 1, asker.upstream + 1
        findings.append(finding)
        report.tell(finding)
    report.end(findings, judged=patient.judged, requests=asker.requests, upstream=asker.upstream)
    if not patient.judged:
        return UNJUDGED
    return FAULTY if any(finding.verdict is Verdict.FAULT for finding in findings) else SOUND


def request_of(options: argparse.Namespace) -> Request:
    """The request that begins the stream. ValueError where the options contradict each other."""
    fields = _fields(options)
    names = {name.lower() for name, _ in fields}
    url: URL = options.url
    body: bytes | None
    if options.openai is not None:
        if options.data is not None or options.request is not None:
            raise ValueError("--openai makes the request itself: without -d and -X")
        url, added = _completion(url, _key(options))
        method, body = "POST", completion_body(options.openai)
    else:
        body = _body(options.data)
        method = options.request or ("GET" if body is None else "POST")
        added = {"Accept": "text/event-stream"}
        if body is not None:
            added["Content-Type"] = _content_type(body)
    added = {"User-Agent": USER_AGENT, "Accept-Encoding": CODINGS} | added
    given = tuple((name, value) for name, value in added.items() if name.lower() not in names)
    if url.user is not None:
        raise ValueError("credentials in the URL: send them with -H 'Authorization: …'")
    return Request(url, method, (*given, *fields), body)


def examination_of(options: argparse.Namespace, request: Request) -> Examination:
    """What to examine. OSError or ValueError where the certificates cannot be read."""
    dialer = Dialer(insecure=options.insecure, cacert=options.cacert)
    try:
        dialer.context(("http/1.1",))
    except ssl.SSLError as error:
        raise ValueError(f"{options.cacert}: no certificates: {error.reason}") from error
    return Examination(
        request,
        dialer,
        Patience(options.seconds, options.idle),
        websocket=options.websocket,
        direct=_direct(options),
    )


def _direct(options: argparse.Namespace) -> URL | None:
    """The origin's URL; with --openai its path, if it has one, is a base like the URL's."""
    direct: URL | None = options.direct
    if direct is None or options.openai is None or (direct.raw_path in ("", "/") and not direct.query):
        return direct
    return _completions(direct)


def _completion(base: URL, key: str) -> tuple[URL, dict[str, str]]:
    """Where and how OpenAI's SDK asks for a chat completion."""
    fields = {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "Authorization": f"Bearer {key}",
    }
    return _completions(base), fields


def _completions(base: URL) -> URL:
    """Where the SDK asks, below its base URL."""
    path = base.raw_path.rstrip("/") + "/chat/completions"
    return base.with_path(path, encoded=True, keep_query=True)


def _report(options: argparse.Namespace, shade: Shade) -> Report:
    if options.json:
        return Document(sys.stdout, shade)
    colour = wants_colour(sys.stdout, refused=options.no_color)
    width = shutil.get_terminal_size((110, 24)).columns if sys.stdout.isatty() else 110
    return Lines(sys.stdout, shade, colour=colour, width=width)


def _key(options: argparse.Namespace) -> str:
    return options.api_key or os.environ.get("OPENAI_API_KEY") or "none"


def _fields(options: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    pairs = (header.split(":", 1) for header in options.header)
    return tuple((name.strip(), value.strip()) for name, value in pairs)


def _body(data: str | None) -> bytes | None:
    if data is None or not data.startswith("@"):
        return None if data is None else data.encode()
    with Path(data[1:]).open("rb") as file:
        body = file.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"{data[1:]}: more than {MAX_BODY_BYTES} bytes")
    return body


def _content_type(body: bytes) -> str:
    return "application/json" if body.lstrip()[:1] in (b"{", b"[") else "application/x-www-form-urlencoded"
