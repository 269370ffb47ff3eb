"""A PostgreSQL whose clock steps as a test wants: gettimeofday and its like answer so many seconds too much."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from webhook_gateway.host import account
from webhook_gateway.host.embedded_postgres import EmbeddedPostgres

from .postgres import FAST

COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler on this machine")

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long *seconds;

__attribute__((constructor)) static void begin(void) {
    seconds = mmap(0, sizeof *seconds, PROT_READ, MAP_SHARED, open(getenv("STEPPING_CLOCK"), O_RDONLY), 0);
}
int gettimeofday(struct timeval *now, void *zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int failed = real(now, zone);
    now->tv_sec += *seconds;
    return failed;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += *seconds;
    return failed;
}
time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}
"""


@dataclass(frozen=True)
class Stepping:
    """``url`` is of the server's maintenance database."""

    url: str
    _seconds: mmap.mmap

    def step(self, seconds: int) -> None:
        """From now on, and counted from the true time: 0 is back."""
        self._seconds[:] = struct.pack("l", seconds)


@contextmanager
def stepping_postgres() -> Iterator[Stepping]:
    assert COMPILER is not None
    directory = Path(tempfile.mkdtemp(prefix="webhook-gateway-clock-"))
    directory.chmod(0o755)
    library, source, seconds = directory / "clock.so", directory / "clock.c", directory / "seconds"
    try:
        source.write_text(SOURCE)
        subprocess.run([COMPILER, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        seconds.write_bytes(struct.pack("l", 0))
        loaded = {"LD_PRELOAD": str(library), "STEPPING_CLOCK": str(seconds)}
        with (
            patch.dict(account.ENVIRONMENT, loaded),
            EmbeddedPostgres.start(directory / "postgres", settings=FAST, die_with_parent=True) as server,
            seconds.open("r+b") as file,
            mmap.mmap(file.fileno(), 0) as shared,
        ):
            yield Stepping(server.url, shared)
    finally:
        shutil.rmtree(directory)
