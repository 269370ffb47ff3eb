"""Proxies in front: the samples as operators get them, run for real, and the gateway behind goes on answering."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.web.test_connections import Served, serving, statuses

DEPLOY = Path(__file__).parents[2] / "deploy"
PATIENCE = 30.0
NAME = b"gateway.hospital.example"
HEAD = b"GET /healthz HTTP/1.1\r\nHost: " + NAME + b"\r\n"
UPSTREAM = "127.0.0.1:8080"
KEPT, AT_ONCE = 64, 500
"""Connections to the API: those that the samples keep open, and that they open at most."""

NGINX = """
daemon off;
worker_processes 1;
error_log stderr crit;
pid {place}/pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    scgi_temp_path {place}/scgi;
    uwsgi_temp_path {place}/uwsgi;
    include {place}/site.conf;
}}
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy at a port, and the gateway behind it."""

    port: int
    behind: Served
    trusted: ssl.SSLContext

    async def connect(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            self.port,
            ssl=self.trusted,
            server_hostname=NAME.decode(),
            local_addr=(address, 0),
        )
        self.behind.writers.append(writer)
        return reader, writer

    async def whole(self, request: bytes, address: str = "127.0.0.1") -> bytes:
        """Everything until the connection is closed, in whatever way."""
        reader, writer = await self.connect(address)
        with suppress(ConnectionError):
            writer.write(request)
        return await rest(reader)

    def post(self) -> bytes:
        return self.behind.post().replace(b"Host: gateway", b"Host: " + NAME)

    def held(self) -> int:
        """Connections of the gateway."""
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        return sum(line.split()[1].endswith(f":{self.behind.port:04X}") and line.split()[3] == "01" for line in lines)

    async def check(self, most: int = KEPT) -> None:
        """Somebody else is served, and the gateway holds no more connections than that."""
        assert statuses(await self.whole(self.post(), "127.0.0.7")) == [202]
        assert self.held() <= most


async def rest(reader: asyncio.StreamReader) -> bytes:
    found = b""
    with suppress(ConnectionError):
        while part := await asyncio.wait_for(reader.read(65_536), PATIENCE):
            found += part
    return found


def adapted(sample: str, **changes: str) -> str:
    """The sample with another name, port or time where it has one."""
    text = (DEPLOY / sample).read_text()
    for old, new in changes.items():
        assert old in text, f"{sample} has no {old}"
        text = text.replace(old, new)
    return text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def nginx(place: Path, port: int, api: int) -> list[str]:
    site = adapted(
        "nginx.conf",
        **{
            UPSTREAM: f"127.0.0.1:{api}",
            "listen 443": f"listen 127.0.0.1:{port}",
            "/etc/ssl/gateway.": f"{place}/gateway.",
            "client_header_timeout 10s": "client_header_timeout 1s",
            "client_body_timeout 10s": "client_body_timeout 1s",
            "keepalive_timeout 30s": "keepalive_timeout 1s",
        },
    )
    (place / "site.conf").write_text(site)
    (place / "nginx.conf").write_text(NGINX.format(place=place))
    return ["nginx", "-p", str(place), "-c", str(place / "nginx.conf"), "-e", "stderr"]


def caddy(place: Path, port: int, api: int) -> list[str]:
    text = adapted(
        "Caddyfile",
        **{
            UPSTREAM: f"127.0.0.1:{api}",
            "{\n\tservers": "{\n\tadmin off\n\tauto_https off\n\tservers",
            "gateway.hospital.example {": f"https://gateway.hospital.example:{port} {{\n\tbind 127.0.0.1\n"
            f"\ttls {place}/gateway.pem {place}/gateway.key",
            "read_header 10s": "read_header 1s",
            "idle 30s": "idle 1s",
        },
    )
    (place / "Caddyfile").write_text(text)
    return ["caddy", "run", "--config", str(place / "Caddyfile"), "--adapter", "caddyfile"]


@asynccontextmanager
async def in_front(kind: str, database_url: str, place: Path) -> AsyncIterator[Proxy]:
    authority = trustme.CA()
    certificate = authority.issue_cert(NAME.decode())
    certificate.private_key_pem.write_to_path(place / "gateway.key")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(place / "gateway.pem", append=True)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    async with serving(database_url, "--trusted-proxies", "127.0.0.1", header_timeout=1) as behind:
        port = free_port()
        command = (nginx if kind == "nginx" else caddy)(place, port, behind.port)
        with ExitStack() as stack, (place / "said").open("wb") as said:
            environment = {"HOME": str(place), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            proxy = Proxy(port, behind, trusted)
            while True:
                with suppress(OSError):
                    await proxy.check()
                    break
                assert process.poll() is None, (place / "said").read_text()
                await asyncio.sleep(0.05)
            yield proxy


@pytest.fixture(params=["nginx", "caddy"])
async def proxy(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> AsyncIterator[Proxy]:
    kind = request.param
    if shutil.which(kind, path="/usr/sbin:/usr/bin:/usr/local/bin") is None:
        pytest.skip(f"needs {kind} (Debian: {'nginx-light' if kind == 'nginx' else kind})")
    tmp_path.chmod(0o755)
    async with in_front(kind, database_url, tmp_path) as proxy:
        yield proxy


@pytest.mark.slow
async def test_behind_the_sample_of_a_proxy_the_gateway_goes_on_answering(proxy: Proxy) -> None:
    close = b"Connection: close\r\n\r\n"
    assert statuses(await proxy.whole(HEAD + close)) == [200]

    # Heads that have no end, and one that is just too large.
    for flood in (b"X-A: " + b"a" * 3_000_000, b"a: b\r\n" * 500_000, b"X-A: " + b"a" * 70_000 + b"\r\n" + close):
        answer = await proxy.whole(HEAD + flood)
        assert not answer or statuses(answer)[0] in {400, 414, 431}, answer[:200]
    await proxy.check()

    # Heads that come slowly, or never: of none of them the gateway hears.
    before = proxy.held()
    slow = [await proxy.connect() for _ in range(50)]
    for number, (_, writer) in enumerate(slow):
        writer.write(HEAD if number % 2 else b"")
    assert proxy.held() <= before
    for reader, _ in slow:
        answer = await rest(reader)
        assert not answer or statuses(answer) == [408]
    bare = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(50)]  # not even a handshake
    await proxy.check()
    for connection in bare:
        connection.settimeout(PATIENCE)
        with suppress(ConnectionError):
            assert await asyncio.to_thread(connection.recv, 1) == b""
        connection.close()

    # Very many that ask once and stay.
    idle = [await proxy.connect(f"127.0.1.{number % 250}") for number in range(400)]
    for _, writer in idle:
        writer.write(HEAD + b"\r\n")
    await proxy.check(AT_ONCE)
    for reader, _ in idle:
        assert statuses(await rest(reader)) in ([], [200])
    await proxy.check()

    # Bodies that are too large, or come slowly: a large one is refused before it is sent on.
    large = re.sub(rb"Content-Length: \d+", b"Content-Length: 100000000", proxy.post())
    answer = await proxy.whole(large)
    assert not answer or statuses(answer) in ([413], [502])
    slow_body = re.sub(rb"Content-Length: \d+", b"Content-Length: 900000", proxy.post())
    answers = await asyncio.gather(*(proxy.whole(slow_body, f"127.0.2.{number}") for number in range(50)))
    assert all(not answer or statuses(answer) == [408] for answer in answers)
    await proxy.check()
