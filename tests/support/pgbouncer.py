"""A PgBouncer before a PostgreSQL, where there is one on this machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from webhook_gateway.host.account import Account

PROGRAM = shutil.which("pgbouncer", path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="there is no pgbouncer on this machine")


@contextmanager
def pooled(url: str, mode: str) -> Iterator[str]:
    """The URL of the same database through a PgBouncer in that mode."""
    assert PROGRAM is not None
    account, parts = Account.of_a_server(("postgres", "nobody")), urlsplit(url)
    assert account is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="webhook-gateway-pgbouncer-") as name:
        directory = Path(name)
        account.own(directory)
        (directory / "users").write_text(f'"{parts.username}" "{parts.password}"\n')
        (directory / "settings").write_text(
            f"""[databases]
* = host={parts.hostname} port={parts.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {directory}/users
pool_mode = {mode}
default_pool_size = 60
"""
        )
        for file in directory.iterdir():
            account.own(file)
        with (directory / "log").open("w") as log:
            process = subprocess.Popen(
                [PROGRAM, str(directory / "settings")], stdout=log, stderr=log, cwd="/", **account.for_popen
            )
        try:
            while not _answers(port):
                assert process.poll() is None, (directory / "log").read_text()
                time.sleep(0.02)
            yield urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
