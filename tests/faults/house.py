"""The house that the stages stand in: one PostgreSQL, one copy of the code, and a fresh database for each stage."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import webhook_gateway
from tests.support.postgres import MortalPostgres, Server

from .stage import Length, Skip, Stage, staged


@dataclass(frozen=True, slots=True)
class House:
    """``server`` is None where PostgreSQL belongs to somebody else: faults that stop it are skipped then.

    ``code`` is the directory that every process imports the gateway from (see `copy_code`).
    """

    databases: Server
    template: str
    length: Length
    code: Path
    server: MortalPostgres | None = None

    @asynccontextmanager
    async def stage(self, *, tablespace: str = "pg_default", **options: Any) -> AsyncIterator[Stage]:
        """A stage on a database of its own; ``options`` are those of `staged`."""
        async with (
            self.databases.copy(self.template, tablespace) as url,
            staged(url, self.length, self.code, server=self.server, **options) as stage,
        ):
            yield stage

    def postgres(self) -> MortalPostgres:
        """
        Raises:
            Skip: it isn't ours to stop.
        """
        if self.server is None:
            raise Skip("the PostgreSQL isn't ours to stop")
        return self.server


def copy_code(directory: Path) -> Path:
    """A copy of the gateway's code as it is now.

    A fault starts processes for minutes. From a tree that somebody edits meanwhile they would be of several versions,
    and one that met a half-saved file fails in a way that no fault has made.
    """
    code = directory / "code"
    package = Path(webhook_gateway.__file__).parent
    shutil.copytree(package, code / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    return code
