"""What the API's processes count together: whichever of them is asked for ``/metrics``, it shows the sum.

They share one listening socket, so Prometheus can't ask one of them in particular. Each counts in files of its own that
are mapped into memory (the multiprocess mode of prometheus_client), named after its number and not after its process
id: one that is started again goes on where the one before it ended, so no sum ever falls and no file is left over.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from tempfile import gettempdir, mkdtemp

SHARE = "WEBHOOK_GATEWAY_COUNTERS"
"""In the environment of such a process: the directory of all, and as the last part its own number."""
MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a directory there that only we can enter
PREFIX = "webhook-gateway-counters-"
MAPPED = {"counter": 131_072, "gauge_sum": 65_536, "histogram": 393_216}
"""The files of a process, as prometheus_client names them, and their bytes: room for each route of the API."""
NEW = 60.0
"""Seconds for which a directory that nobody has locked may still be one that is just being made."""


@contextmanager
def shared_by(processes: int) -> Iterator[Path | None]:
    """A directory for the counters of so many processes, removed at the end; None for one, which needs none.

    It is in memory where it can be, since a disk that is slow to write would hold up whoever counts. Where there is no
    place for it the gateway runs nevertheless, and each process shows what it counted itself.
    """
    directory = _make() if processes > 1 else None
    if directory is None:
        yield None
        return
    ours = os.open(directory, os.O_RDONLY)
    flock(ours, LOCK_EX)  # until we end, however we end
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(ours)


def join() -> None:
    """Counts in this process's part of the share, if it has one. To be called before the first metric is made."""
    share = _mine()
    if share is not None and not _reserve(share):
        del os.environ[SHARE]
    elif share is not None:
        from prometheus_client import values

        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(share.parent)
        values.ValueClass = values.MultiProcessValue(lambda: share.name)  # type: ignore[no-untyped-call]


def soon(tell: Callable[[float], None], value: float) -> None:
    """``tell`` is a metric's; it is told with others, since one alone costs most."""
    _untold[tell].append(value)


def count() -> None:
    """What was to be counted soon."""
    for tell, values in _untold.items():
        for value in values:
            tell(value)
    _untold.clear()


_untold: defaultdict[Callable[[float], None], list[float]] = defaultdict(list)


def shown() -> bytes:
    """In Prometheus' text format: the sums of all processes that share, or what this one alone has counted."""
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    count()
    share = _mine()
    if share is None:
        return generate_latest(REGISTRY)
    sums = CollectorRegistry()
    MultiProcessCollector(sums, path=str(share.parent))  # type: ignore[no-untyped-call]
    return generate_latest(sums)


def _reserve(share: Path) -> bool:
    """Takes the memory now, if there is any: to touch a page that can't be had would end the process (SIGBUS)."""
    for kind, size in MAPPED.items():
        file = share.parent / f"{kind}_{share.name}.db"
        with file.open("ab") as opened:
            try:
                os.posix_fallocate(opened.fileno(), 0, size)
            except OSError:
                if not opened.tell():
                    file.unlink()  # an empty one can't be read as counters
                return False
    return True


def _make() -> Path | None:
    try:
        parent = MEMORY if os.access(MEMORY, os.W_OK | os.X_OK) else Path(gettempdir())
        _clear(parent)
        return Path(mkdtemp(prefix=PREFIX, dir=parent))
    except OSError:
        return None


def _clear(parent: Path) -> None:
    """Removes what those have left behind who were killed."""
    for left in parent.glob(PREFIX + "*"):
        with suppress(OSError):  # its owner lives, or it is somebody else's
            directory = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                flock(directory, LOCK_EX | LOCK_NB)
                if time.time() - left.stat().st_mtime > NEW:
                    shutil.rmtree(left)
            finally:
                os.close(directory)


def _mine() -> Path | None:
    """None, too, where somebody has cleared the directory away."""
    share = Path(os.environ.get(SHARE, "/"))
    return share if share.name and share.parent.is_dir() else None
