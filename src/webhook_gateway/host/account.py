"""Who we are, and the account that a program of ours runs as: another one where we are root and it refuses to be."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""Nothing of ours: PGDATA, PGPORT and the like would change what programs do, and HOME may be closed to them."""

NO_LOGIN = 2**32 - 1
"""The login uid of what nobody has logged in for: a service, or a container."""


def user() -> str:
    """The operating system's user: who logged in, whatever they have become since (sudo), or else who we are."""
    try:
        uid = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):
        uid = NO_LOGIN
    uid = os.getuid() if uid == NO_LOGIN else uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@dataclass(frozen=True, slots=True)
class Account:
    """``uid`` and ``gid`` are None where it is whoever we are, which is fine for everybody but root."""

    name: str
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def of_a_server(cls, names: Sequence[str]) -> Self | None:
        """Whoever we are, or for root the first of the named accounts that exists; None where none does."""
        if os.geteuid() != 0:
            return cls(str(os.geteuid()))
        for name in names:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(name, entry.pw_uid, entry.pw_gid)
        return None

    @property
    def for_popen(self) -> dict[str, Any]:
        """How `subprocess` starts a program as this account."""
        groups: list[int] | None = None if self.uid is None else []
        return {"user": self.uid, "group": self.gid, "extra_groups": groups, "env": dict(ENVIRONMENT)}

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, cwd="/", **self.for_popen
        )

    def can_run(self, command: Sequence[str]) -> bool:
        # Trying is the only honest test: permissions, access lists and mount options all have a say.
        try:
            return self.run(command).returncode == 0
        except OSError:
            return False

    def own(self, path: Path) -> None:
        """Gives a file or directory to the account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def open_private(self, path: Path) -> BinaryIO:
        """Open for appending; mode 0600, the account's. Follows no link: root is at work in somebody else's place."""
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if self.uid is not None and self.gid is not None:
            os.fchown(descriptor, self.uid, self.gid)
        return os.fdopen(descriptor, "ab")
