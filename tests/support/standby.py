"""A standby of a PostgreSQL of ours, by streaming replication, and what turns one into the other."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.postgres import MortalPostgres


def standby_of(primary: MortalPostgres, directory: Path) -> MortalPostgres:
    """A second server that follows the first one; ``directory`` is new, and readable for the servers' account."""
    account, data = primary._account, directory / "pgdata"
    directory.mkdir()
    account.own(directory)
    copy = account.run(
        [
            str(primary._binaries / "bin" / "pg_basebackup"),
            f"--dbname={primary.url}",
            f"--pgdata={data}",
            "-R",
            "-cfast",
        ]
    )
    assert copy.returncode == 0, copy.stderr.decode()
    shutil.copy2(primary.data_directory / "password", directory / "password")
    return MortalPostgres.start(directory, settings=dict(primary._settings), die_with_parent=True)


def follow(former: MortalPostgres, primary: MortalPostgres) -> None:
    """Starts a former primary, which was stopped in good order, as a standby of the one that was promoted."""
    with former._account.open_private(former._pgdata / "postgresql.auto.conf") as file:
        file.write(f"\nprimary_conninfo = '{primary.url}'\nrecovery_target_timeline = 'latest'\n".encode())
    with former._account.open_private(former._pgdata / "standby.signal"):
        pass
    former.restart()
