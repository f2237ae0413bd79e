"""The command ``sse-sidecar``: serve, demo, check, schema, chat, doctor."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from proxy import __version__
from proxy.config import load, schema
from proxy.doctor.arguments import add_arguments
from proxy.errors import ConfigError

#: What a shell reports for a command that Ctrl-C ended.
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 used wrongly."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"sse-sidecar: {_told(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _told(error: OSError) -> str:
    """Say what it is about, then what is wrong with it."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}"


def _serve(options: argparse.Namespace) -> int:
    from proxy.server.run import run, serve

    return run(serve(load(options.config), source=options.config))


def _demo(options: argparse.Namespace) -> int:
    try:
        from proxy.demo.run import demo
    except ModuleNotFoundError as error:
        return _missing(error)
    from proxy.server.run import run

    return run(demo(options.listen, options.admin))


def _check(options: argparse.Namespace) -> int:
    config = load(options.config)
    upstreams = len(config.upstreams)
    print(f"{options.config}: good. {upstreams} upstream{'s' * (upstreams != 1)}; routes in order:")
    for route in config.routes:
        guarded = " (spends a credential)" if config.upstreams[route.upstream].injects_credentials else ""
        methods = ",".join(route.methods) if route.methods is not None else "any method"
        form = "" if route.emit.form == "passthrough" else f", emit: {route.emit.form}"
        spoken = "" if route.websocket == "off" else f", WebSocket: {route.websocket}"
        print(f"  {route.name:16} {methods:12} {route.path:32} → {route.upstream}{guarded}{form}{spoken}")
    return 0


def _schema(options: argparse.Namespace) -> int:
    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0


def _chat(options: argparse.Namespace) -> int:
    from proxy.chat import chat
    from proxy.server.run import run

    headers = dict(header.split(":", 1) for header in options.header)
    return run(
        chat(
            base_url=options.url,
            model=options.model,
            prompt=options.prompt,
            drop_after=options.drop_after,
            api_key=options.api_key,
            headers={name.strip(): value.strip() for name, value in headers.items()},
            out=sys.stdout,
        )
    )


def _doctor(options: argparse.Namespace) -> int:
    from proxy.doctor.command import doctor

    # uvloop now and then complains on stderr of a TLS connection that was dropped on purpose.
    return asyncio.run(doctor(options))


def _missing(error: ModuleNotFoundError) -> int:
    print(f"sse-sidecar: {error}; install it with: pip install 'sse-sidecar[openai]'", file=sys.stderr)
    return 1


def _port(value: str) -> str:
    if value.startswith("unix:") or not value.rpartition(":")[2].isdigit():
        raise argparse.ArgumentTypeError(f"{value!r}: expected host:port")
    return value


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value}: expected 1 or more")
    return number


def _header(value: str) -> str:
    if ":" not in value:
        raise argparse.ArgumentTypeError(f"{value!r}: expected 'Name: value'")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sse-sidecar", description="A reverse proxy that makes event streams whole."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("serve", help="serve a configuration until SIGTERM")
    command.add_argument("config", type=Path, help="YAML file; reloaded on change and on SIGHUP")
    command.set_defaults(run=_serve)

    command = commands.add_parser("demo", help="serve in front of a built-in provider, with lines to try")
    command.add_argument("--listen", type=_port, default="127.0.0.1:8080", help="default: %(default)s")
    command.add_argument("--admin", type=_port, default="127.0.0.1:9090", help="default: %(default)s")
    command.set_defaults(run=_demo)

    command = commands.add_parser("check", help="check a configuration and show its routes")
    command.add_argument("config", type=Path)
    command.set_defaults(run=_check)

    command = commands.add_parser("schema", help="print the configuration's JSON Schema, for editors")
    command.set_defaults(run=_schema)

    command = commands.add_parser("chat", help="stream a chat completion through a sidecar")
    command.add_argument("prompt", nargs="?", default="Tell me about streams.")
    command.add_argument("--url", default="http://127.0.0.1:8080/v1", help="base URL; default: %(default)s")
    command.add_argument("--model", default="demo", help="default: %(default)s")
    command.add_argument(
        "--drop-after", type=_positive, metavar="N", help="cut the connection after N events, and resume"
    )
    command.add_argument(
        "--api-key", default=os.environ.get("OPENAI_API_KEY", "none"), help="default: $OPENAI_API_KEY"
    )
    command.add_argument(
        "--header", action="append", default=[], type=_header, metavar="'NAME: VALUE'", help="send this too"
    )
    command.set_defaults(run=_chat)

    command = commands.add_parser("doctor", help="examine any streaming URL: what is wrong, what mends it")
    add_arguments(command)
    command.set_defaults(run=_doctor)
    return parser
