"""A real nginx in front of whatever a test has: its configuration, its certificate, and the process.

with Certificate() as certificate:
    conf = http(template(http=PORT, https=PORT, certificate=certificate, SIDECARS="server 127.0.0.1:8080;"))
    async with Nginx(conf) as nginx:
        …
        await nginx.restart()
"""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import trustme

from tests.support.process import Process, free_port, program, run

__all__ = ["FOLDER", "Certificate", "Nginx", "check", "free_port", "http", "substitute", "template"]

FOLDER = Path(__file__).parents[2] / "nginx"

#: What the official image and Debian say before the files of conf.d come: both, so that a template has to
#: live with either. Paths are below nginx's prefix, the test's own directory.
HEAD = """\
worker_processes 1;
error_log error.log info;
events { worker_connections 1024; }
http {
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    default_type application/octet-stream;
    log_format main '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent';
    access_log access.log main;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 65;
    gzip on;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_prefer_server_ciphers on;
"""


class Certificate:
    """A certificate for localhost, 127.0.0.1 and these names, as files, and the authority that issued it."""

    def __init__(self, *names: str) -> None:
        self.authority = trustme.CA()
        self._issued = self.authority.issue_cert("localhost", "127.0.0.1", *names)
        self._directory = tempfile.TemporaryDirectory(prefix="certificate-")
        self.directory = Path(self._directory.name)
        self.chain, self.key = self.directory / "tls.crt", self.directory / "tls.key"
        self.ca = self.directory / "ca.crt"
        self._issued.private_key_pem.write_to_path(self.key)
        for pem in self._issued.cert_chain_pems:
            pem.write_to_path(self.chain, append=True)
        self.authority.cert_pem.write_to_path(self.ca)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_failure: object) -> None:
        self._directory.cleanup()

    def client(self) -> ssl.SSLContext:
        """Return a client's context that trusts the authority, and only it."""
        return ssl.create_default_context(cafile=str(self.ca))


def http(contents: str, *, main: str = "") -> str:
    """Return a whole nginx.conf with these ``contents`` of http{}, and ``main`` lines of the main context.

    It logs to ``error.log`` and ``access.log`` in nginx's own directory; compression is on, as Debian has it.
    """
    # A worker of another user could not reach the test's own directory.
    user = "user root;\n" if os.geteuid() == 0 else ""
    return f"{user}{main}{HEAD}{contents}\n}}\n"


def substitute(text: str, **variables: str) -> str:
    """Return ``text`` after the official image's envsubst: $NAME and ${NAME}, of defined variables only."""

    def value(found: re.Match[str]) -> str:
        return variables.get(found[1] or found[2], found[0])

    return re.sub(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", value, text)


def template(*, http: int, https: int, certificate: Certificate, **variables: str) -> str:
    """Return the shipped template for http{}, with these variables as the official image sets them.

    A container listens on 80 and 443 and has folders mounted; here the ports are ``http`` and ``https`` of
    the loopback, the certificate is the test's, includes come from this project, and the access log is in
    nginx's own directory.
    """
    text = substitute((FOLDER / "default.conf.template").read_text("utf-8"), **variables)
    text = re.sub(r"\blisten 80\b", f"listen 127.0.0.1:{http}", text)
    text = re.sub(r"\blisten 443\b", f"listen 127.0.0.1:{https}", text)
    text = text.replace("/etc/nginx/templates/", f"{FOLDER}/").replace("/var/log/nginx/", "")
    return text.replace("/etc/nginx/tls/", f"{certificate.directory}/")


class Nginx(Process):
    """One nginx with the configuration ``conf``, in the foreground, in a fresh directory that is its prefix.

    ``ports`` are found in ``conf`` where they are not given. ``command`` is another nginx than the installed
    one.
    """

    def __init__(
        self, conf: str, *, ports: Sequence[int] | None = None, command: Sequence[str | Path] | None = None
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="nginx-")
        self.directory = Path(self._directory.name)
        self._conf = self.directory / "nginx.conf"
        self._conf.write_text(conf, "utf-8")
        self._nginx = [
            *(command or [program("nginx")]),
            *("-p", self.directory, "-e", "error.log", "-c", self._conf),
        ]
        super().__init__(
            *(*self._nginx, "-g", "daemon off; pid nginx.pid;"),
            ports=listened(conf) if ports is None else ports,
            output=self.directory / "output",
        )

    async def __aenter__(self) -> Self:
        try:
            status, output = await self.check()
            assert status == 0, output
            return await super().__aenter__()
        except BaseException:
            self.discard()
            raise

    async def __aexit__(self, *failure: object) -> None:
        await super().__aexit__(*failure)
        self.discard()

    async def check(self) -> tuple[int, str]:
        """Run ``nginx -t``; return its exit status and what it says."""
        return await run(*self._nginx, "-t", "-g", "pid nginx.pid;")

    def discard(self) -> None:
        """Remove its directory: for one that was never started."""
        self._directory.cleanup()

    def error_log(self) -> str:
        """Return its error log."""
        return self._log("error.log")

    def access_log(self, name: str = "access.log") -> str:
        """Return an access log of its directory."""
        return self._log(name)

    def _log(self, name: str) -> str:
        path = self.directory / name
        return path.read_text("utf-8", "replace") if path.exists() else ""


async def check(conf: str, command: Sequence[str | Path] | None = None) -> tuple[int, str]:
    """Run ``nginx -t`` on a configuration and start nothing; return its exit status and what it says."""
    nginx = Nginx(conf, command=command)
    try:
        return await nginx.check()
    finally:
        nginx.discard()


def listened(conf: str) -> list[int]:
    """Return the TCP ports of the loopback that a configuration listens on."""
    directives = re.sub(r"#[^\n]*", "", conf)
    return sorted({int(port) for port in re.findall(r"\blisten\s+(?:127\.0\.0\.1:)?(\d+)\b", directives)})
