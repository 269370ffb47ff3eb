"""Whether a process still works: it says so every few seconds, from its event loop, to whoever would start it again.

A call into native code can hold the loop for ever, and then nothing within the process can notice. The supervisor gives
each of its processes a pipe; systemd has a socket for the same (sd_notify(3), ``WATCHDOG=1``).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

PIPE = "WEBHOOK_GATEWAY_WATCHDOG"
"""In the environment of such a process: the descriptor of its end."""
EVERY = 4.0
ROUNDS = 5  # of silence, after which a process is given up


def start() -> None:
    """Says so from now on, in the running loop; nothing where nobody wants to hear it."""
    ways: list[Callable[[], object]] = []
    every = EVERY
    if number := os.environ.pop(PIPE, ""):
        os.set_blocking(int(number), False)
        ways.append(partial(os.write, int(number), b"."))
    patience = int(os.environ.get("WATCHDOG_USEC", "0"))
    if patience and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
        every = min(every, patience / 2_000_000)  # as sd_watchdog_enabled(3) has it
        ways.append(partial(_notify, os.environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)))
    if ways:
        _say(ways, every)


def _say(ways: list[Callable[[], object]], every: float) -> None:
    for way in ways:
        with suppress(OSError):  # nobody listens any more
            way()
    loop = asyncio.get_running_loop()
    loop.call_later(every - loop.time() % every, _say, ways, every)  # when everything else wakes up


def _notify(address: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as systemd:
        systemd.sendto(b"WATCHDOG=1", address)


class Watch:
    """The supervisor's end of the pipe of process ``pid``. Calls ``give_up`` when it has been silent for ``patience``.

    Silence counts from the first word on, in rounds of our own loop: where this process gets no time either, because
    the machine is overloaded or was suspended, no other is blamed. Neither is one that somebody has stopped (SIGSTOP).
    """

    def __init__(self, pid: int, pipe: int, patience: float, give_up: Callable[[], None]) -> None:
        self._pid, self._pipe, self._patience, self._give_up = pid, pipe, patience, give_up
        self.heard = asyncio.Event()
        self._silent = 0
        self._round: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pipe, self._hear)

    def end(self) -> None:
        self._loop.remove_reader(self._pipe)
        os.close(self._pipe)
        if self._round is not None:
            self._round.cancel()

    def _hear(self) -> None:
        if not os.read(self._pipe, 4_096):
            self._loop.remove_reader(self._pipe)  # it has closed its end, so it ends
        self.heard.set()
        self._silent = 0
        self._wait()

    def _count(self) -> None:
        self._silent += not _is_stopped(self._pid)
        if self._silent == ROUNDS:
            self._give_up()
        else:
            self._wait()

    def _wait(self) -> None:
        if self._round is not None:
            self._round.cancel()  # a process that works causes no round
        self._round = self._loop.call_later(self._patience / ROUNDS, self._count)


def _is_stopped(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] in {"T", "t"}
