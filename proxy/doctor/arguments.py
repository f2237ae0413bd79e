"""The arguments of ``sse-sidecar doctor``; they are curl's where curl has them.

Apart from the command itself, so that the other commands need not import what it needs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from yarl import URL

EPILOG = """\
One stream is opened, watched, dropped, resumed and cancelled: the upstream sees one request, and a GET for
the WebSocket handshake where the method is not GET (no provider charges for it). --direct, --openai and, on
streams that are no sidecar's, a resume add one each. While it watches, it looks at the sidecar's state,
which costs nothing. The report says how many requests were made.

exit status: 0 no fault (there may be warnings); 1 at least one fault; 2 used wrongly, or no stream to judge.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    add = parser.add_argument
    add("url", type=_url, metavar="URL", help="any streaming URL; with --openai the SDK's base URL")
    add("-X", "--request", metavar="METHOD", help="default: GET, with -d POST")
    add(
        "-H",
        "--header",
        action="append",
        default=[],
        type=_header,
        metavar="'NAME: VALUE'",
        help="send this too",
    )
    add("-d", "--data", metavar="BODY", help="the body, or @FILE; JSON is sent as application/json")
    add("--openai", metavar="MODEL", help="ask for a chat completion, and once more through OpenAI's SDK")
    add("--api-key", metavar="KEY", help="for --openai; default: $OPENAI_API_KEY")
    add(
        "--direct",
        type=_url,
        metavar="URL",
        help="the origin, past the edge: asked for the same at the same time; with --openai a base URL too",
    )
    add(
        "--seconds",
        type=_positive,
        default=10.0,
        metavar="S",
        help="watch for so long at most; default: %(default)g",
    )
    add(
        "--idle",
        type=_positive,
        metavar="S",
        help="wait for a silence of S seconds, and see whether it is survived",
    )
    add("--websocket", action="store_true", help="a URL that answers no WebSocket handshake is a fault")
    add("--json", action="store_true", help="one JSON document in place of lines")
    add("--no-color", action="store_true", help="no colour on a terminal; NO_COLOR says the same")
    add("-k", "--insecure", action="store_true", help="believe any certificate")
    add("--cacert", type=Path, metavar="FILE", help="believe the certificates that these authorities sign")


def _url(value: str) -> URL:
    try:
        url = URL(value if "://" in value else f"http://{value}")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value!r}: {error}") from None
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise argparse.ArgumentTypeError(f"{value!r}: expected http://… or https://…")
    return url.with_fragment(None)


def _header(value: str) -> str:
    name, colon, text = value.partition(":")
    if not (colon and name.strip()) or any(ord(character) < 32 for character in text.strip()):
        raise argparse.ArgumentTypeError(f"{name!r}: expected 'Name: value'")
    return value


def _positive(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{value!r}: expected seconds, more than 0")
    return seconds
