"""Processes of the bench: each ends with it, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

CHECKOUT = Path(__file__).parents[1]
PATIENCE = 30.0
"""Seconds between SIGTERM and SIGKILL."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def spawn(
    command: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.Popen[bytes]:
    """Starts a process in the checkout. Its errors go where its output goes, or to ours where that is a pipe."""
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=None if stdout == subprocess.PIPE else subprocess.STDOUT,
        env={**os.environ, **environment},
        cwd=CHECKOUT,
        preexec_fn=_end_with_parent(),
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """In good order if it can, or else at once."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_with_parent() -> Callable[[], None]:
    parent = os.getpid()

    def ask_kernel() -> None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask_kernel
