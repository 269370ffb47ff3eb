"""A tree of processes: kept running, stopped in order, and never outliving the one that started them.

Linux only: the kernel tells a child when its parent has died (prctl(2), PR_SET_PDEATHSIG) and tells the parent through
a descriptor when a child has ended (pidfd_open(2)), so no thread has to wait for either.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from . import watchdog
from .watchdog import PIPE, Watch

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
STEADY = 60.0
"""Seconds after which a process counts as having started well."""
TAIL = 20
"""Lines of a log that say why."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class DidNotStart(Exception):
    """A process ended, or stayed silent, before it was ready. The message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. ``log`` takes both of its outputs; without one they go where ours go.

    ``descriptors`` stay open in it (a listening socket, say). ``patience`` is how many seconds it has between SIGTERM
    and SIGKILL. One that has said that it works (`watchdog.start`) is killed after ``hangs_after`` seconds of
    silence.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    log: Path | None = None
    descriptors: tuple[int, ...] = ()
    directory: Path | None = None
    patience: float = 30.0
    hangs_after: float = 30.0


class Process:
    """One run of a program. ``ended`` holds its exit status; start it inside an event loop, in the main thread."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.hung = False
        self._log_from = 0
        heard, said = os.pipe()
        try:
            self._popen = self._spawn(said)
        except BaseException:
            os.close(heard)
            raise
        finally:
            os.close(said)
        self.pid = self._popen.pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.watch = Watch(self.pid, heard, program.hangs_after, self._give_up)
        self._handle = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._handle, self._notice)

    async def stop(self) -> int:
        """Asks it to end, waits as long as its program allows, then makes it. Returns the exit status."""
        if not self.ended.done():
            self._popen.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.ended), self.program.patience)
        if not self.ended.done():
            self.kill()
        return await self.ended

    def kill(self) -> None:
        if not self.ended.done():
            self._popen.kill()

    def _give_up(self) -> None:
        self.hung = True
        self.kill()

    def said(self) -> list[str]:
        """The lines of its log since it was started; nothing where it has no log of its own."""
        if self.program.log is None:
            return []
        with self.program.log.open("rb") as log:
            log.seek(self._log_from)
            return log.read().decode(errors="replace").splitlines()

    def why(self, what: str) -> DidNotStart:
        lines = "\n".join(f"    {line}" for line in self.said()[-TAIL:])
        where = f"; its log ends with\n{lines}" if lines else ": see what it said above"
        return DidNotStart(f"{self.program.name} {what}{where}")

    def _spawn(self, said: int) -> subprocess.Popen[bytes]:
        log = None
        if self.program.log is not None:
            log = os.open(self.program.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._log_from = os.fstat(log).st_size
        try:
            return subprocess.Popen(
                self.program.command,
                stdin=subprocess.DEVNULL,
                stdout=log if log is not None else sys.stderr,
                stderr=log if log is not None else sys.stderr,
                env={**os.environ, **self.program.environment, PIPE: str(said)},
                cwd=self.program.directory,
                pass_fds=(*self.program.descriptors, said),
                # Ctrl-C then reaches us alone, and we stop the others in order.
                start_new_session=True,
                preexec_fn=end_with_parent(),  # noqa: PLW1509
            )
        finally:
            if log is not None:
                os.close(log)

    def _notice(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self.watch.end()
        self.ended.set_result(self._popen.wait())


class Tree:
    """Keeps groups of programs running. Stops group after group, the first one first."""

    def __init__(self, groups: Sequence[Sequence[Program]], say: Callable[[str], None]) -> None:
        self._groups = groups
        self._say = say
        self._running: dict[str, Process] = {}
        self._stopping = asyncio.Event()

    async def run(self, until: asyncio.Event, hurry: asyncio.Event) -> None:
        """Starts everything, starts again what dies, and stops it all when ``until`` is set; at once on ``hurry``."""
        watchdog.start()
        keepers = [asyncio.create_task(self._keep(program)) for group in self._groups for program in group]
        try:
            await until.wait()
        finally:
            self._stopping.set()
            killing = asyncio.create_task(self._kill_on(hurry))
            for group in self._groups:
                await asyncio.gather(*(self._stop(program) for program in group))
            killing.cancel()
            await asyncio.gather(*keepers)

    def processes(self) -> list[Process]:
        return list(self._running.values())

    async def _keep(self, program: Program) -> None:
        failures = 0
        while not self._stopping.is_set():
            begun = time.monotonic()
            process = self._running[program.name] = Process(program)
            status = await process.ended
            if self._stopping.is_set():
                return
            failures = 0 if time.monotonic() - begun >= STEADY else failures + 1
            delay = delay_before_restart(failures)
            how = f"hung for {program.hangs_after:g} s and was killed" if process.hung else ending(status)
            self._say(f"{program.name} (process {process.pid}) {how}; starting it again in {delay:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _stop(self, program: Program) -> None:
        process = self._running.get(program.name)
        if process is None:
            return
        status = await process.stop()
        if status == -signal.SIGKILL:
            self._say(f"{program.name} did not end within {program.patience:g} s and was killed")

    async def _kill_on(self, hurry: asyncio.Event) -> None:
        await hurry.wait()
        for process in self.processes():
            process.kill()


def delay_before_restart(failures: int) -> float:
    """Seconds to wait before a process that died is started again: at once-ish, then ever longer."""
    return float(min(FIRST_DELAY * 2 ** max(0, failures - 1), LONGEST_DELAY))


def ending(status: int) -> str:
    """How a process ended, in words: ``ended with status 1``, ``was ended by SIGKILL``."""
    return f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"


def watch_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Two events: the first SIGTERM or SIGINT sets ``until``, the second one ``hurry``."""
    until, hurry = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (hurry if until.is_set() else until).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return until, hurry


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """What a child does first, so that the kernel sends it the signal when the thread that started it has ended."""
    parent = os.getpid()

    def ask_kernel() -> None:
        _prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_kernel
