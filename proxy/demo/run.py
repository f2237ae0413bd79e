"""``sse-sidecar demo``: the sidecar in front of the built-in provider, and lines to try."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from proxy.config import Config, parse
from proxy.demo.provider import start_provider
from proxy.server.app import Sidecar
from proxy.server.run import serve

#: A configuration as a newcomer would write it; PROVIDER and the addresses come from the environment.
DEMO_CONFIG = """\
listen: ${LISTEN}
admin: {listen: "${ADMIN}"}
drain: 2s
defaults: {heartbeat: 5s, retry: 1s}
upstreams:
  provider: {url: "${PROVIDER}"}
routes:
  - {name: events, path: /api/events, upstream: provider, methods: [GET], reconnect: true}
  - {name: audio, path: /api/audio, upstream: provider, websocket: passthrough}
  - {name: socket, path: /api/socket, upstream: provider, websocket: passthrough}
  - {name: realtime, path: /v1/realtime, upstream: provider, websocket: passthrough}
  - name: unified
    path: "/unified/{tail:.*}"
    strip_prefix: /unified
    upstream: provider
    emit: unified
    websocket: bridge
  - name: as-openai
    path: "/as-openai/{tail:.*}"
    strip_prefix: /as-openai
    upstream: provider
    emit: openai
  - {name: all, path: "/{tail:.*}", upstream: provider, websocket: bridge}
"""

TRY = """
The sidecar listens on {url}, in front of a built-in provider:

  {provider}

Open in a browser:

  {url}/_playground     streams to watch, to drop and to resume
  {admin}/              what the operator sees

Try, in another terminal:

  # tokens as they come, numbered
  curl -N {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model":"demo","stream":true,"messages":[{{"role":"user","content":"hello"}}]}}'

  # an SDK that loses its connection after 7 events and resumes without losing a token
  {command} chat --url {url}/v1 --drop-after 7 "Tell me about streams"

  # a model that thinks for 12 seconds: heartbeats keep the connection open (one every 5 seconds here)
  curl -N '{url}/v1/chat/completions?first_delay=12' -H 'content-type: application/json' \\
    -d '{{"model":"demo","stream":true,"messages":[{{"role":"user","content":"hello"}}]}}'

  # any provider in one form: Anthropic's messages as unified events
  curl -N {url}/unified/v1/messages -H 'content-type: application/json' \\
    -d '{{"model":"demo","stream":true,"max_tokens":100,"messages":[{{"role":"user","content":"hello"}}]}}'

  # an app's own feed; resume it with -H 'Last-Event-ID: 4'
  curl -N {url}/api/events

  # the same app over WebSocket, from a page of this origin (the playground's console) or any client:
  #   new WebSocket("{socket}/api/chat"), then send {{"prompt":"hello"}} and, to stop, {{"type":"cancel"}}

  # what the operator sees
  curl {admin}/streams ; curl {admin}/metrics

Ctrl-C ends it.
"""


def demo_config(provider: str, listen: str, admin: str) -> Config:
    """Return the demo's configuration for a provider at a base URL."""
    return parse(DEMO_CONFIG, "demo", {"PROVIDER": provider, "LISTEN": listen, "ADMIN": admin})


async def demo(listen: str, admin: str) -> int:
    """Serve the demo until it is interrupted. Raises OSError where an address is taken."""
    provider = await start_provider()
    try:
        config = demo_config(provider.url, listen, admin)

        async def ready(sidecar: Sidecar) -> None:
            lines = TRY.format(
                url=sidecar.url,
                socket=sidecar.url.replace("http", "ws", 1),
                provider=provider.url,
                admin=sidecar.admin_url,
                command=_command(),
            )
            print(lines, flush=True)

        return await serve(config, ready=ready)
    finally:
        await provider.close()


def _command() -> str:
    """The command as another terminal finds it, which may know nothing of our virtual environment."""
    if shutil.which("sse-sidecar") is not None:
        return "sse-sidecar"
    ours = Path(sys.executable).with_name("sse-sidecar")
    return str(ours) if ours.exists() else f"{sys.executable} -m proxy"
