"""A tree of processes: what dies starts again, what is stopped stops in order, and nothing outlives its parent."""

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from webhook_gateway.crypto.master_keys import new_master_key
from webhook_gateway.host import supervisor, watchdog
from webhook_gateway.host.processes import (
    LONGEST_DELAY,
    DidNotStart,
    Process,
    Program,
    Tree,
    delay_before_restart,
    ending,
)

WAIT = "import os, signal, sys\nos.write(int(sys.argv[1]), sys.argv[2].encode() + b'\\n')\nwhile True: signal.pause()"
HANGS = """
import asyncio, os, sys, threading
from webhook_gateway.host import watchdog
async def main():
    watchdog.start()
    os.write(int(sys.argv[1]), sys.argv[2].encode() + b'\\n')
    held = threading.Lock()
    held.acquire()
    held.acquire()
asyncio.run(main())
"""
"""Says that it works, and then holds its event loop for ever."""
WORKS = HANGS.replace("held.acquire()", "await asyncio.Event().wait()").replace(
    "    watchdog.start()", "    watchdog.EVERY = 0.2\n    watchdog.start()"
)
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT


class Running:
    """A tree in the background. Each process writes its name into a pipe when it is ready."""

    def __init__(self, *names: str, code: str = WAIT, patience: float = 10.0, hangs_after: float = 30.0) -> None:
        self._names, self._code, self._patience, self._hangs_after = names, code, patience, hangs_after
        self.said: list[str] = []
        self.until, self.hurry = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Self:
        read, self._write = os.pipe()
        self._ready = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(self._ready)
        self._pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(read))
        groups = [[self._program(name)] for name in self._names]
        self.tree = Tree(groups, self.said.append)
        self._task = asyncio.create_task(self.tree.run(self.until, self.hurry))
        for _ in self._names:
            await self.one_is_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._pipe.close()
        os.close(self._write)

    async def one_is_ready(self) -> str:
        return (await self._ready.readline()).decode().strip()

    async def stop(self) -> None:
        self.until.set()
        await self._task

    def _program(self, name: str) -> Program:
        command = (sys.executable, "-c", self._code, str(self._write), name)
        return Program(
            name, command, descriptors=(self._write,), patience=self._patience, hangs_after=self._hangs_after
        )


async def test_a_process_that_dies_is_started_again() -> None:
    async with Running("worker") as running:
        (first,) = running.tree.processes()
        os.kill(first.pid, signal.SIGKILL)
        assert await running.one_is_ready() == "worker"
        (second,) = running.tree.processes()
        assert second.pid != first.pid
        assert running.said == [f"worker (process {first.pid}) was ended by SIGKILL; starting it again in 0.5 s"]
        await running.stop()
        assert second.ended.result() == -signal.SIGTERM


async def test_a_process_that_hangs_is_killed_and_started_again() -> None:
    async with Running("API", code=HANGS, hangs_after=2.0) as running:
        (first,) = running.tree.processes()
        assert await running.one_is_ready() == "API"
        (second,) = running.tree.processes()
        assert second.pid != first.pid
        assert first.ended.result() == -signal.SIGKILL
        assert running.said == [f"API (process {first.pid}) hung for 2 s and was killed; starting it again in 0.5 s"]


async def test_a_process_that_works_or_was_stopped_by_somebody_is_not_taken_for_hung() -> None:
    async with Running("API", "worker", code=WORKS, hangs_after=2.0) as running:
        works, stopped = running.tree.processes()
        await asyncio.gather(works.watch.heard.wait(), stopped.watch.heard.wait())
        os.kill(stopped.pid, signal.SIGSTOP)
        for _ in range(4):
            works.watch.heard.clear()
            await works.watch.heard.wait()
        assert not works.ended.done()
        assert not stopped.ended.done()
        os.kill(stopped.pid, signal.SIGCONT)
        stopped.watch.heard.clear()
        await stopped.watch.heard.wait()


async def test_the_api_and_the_worker_say_that_they_work(database_url: str) -> None:
    environment = {"DATABASE_URL": database_url, "WEBHOOK_GATEWAY_MASTER_KEYS": new_master_key()}
    until = asyncio.Event()
    with supervisor.listen_on("127.0.0.1", 0) as listener:
        tree = Tree([supervisor.api(1, listener, environment), supervisor.workers(1, environment)], print)
        running = asyncio.create_task(tree.run(until, asyncio.Event()))
        try:
            for _ in range(3):
                await asyncio.sleep(0)  # they are started in the next turns of the loop
            processes = tree.processes()
            assert len(processes) == 2
            await asyncio.gather(*(process.watch.heard.wait() for process in processes))
        finally:
            until.set()
            await running
    assert [process.ended.result() for process in processes] == [0, 0]


async def test_systemd_is_told_by_the_process_that_it_watches_twice_within_its_patience(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        monkeypatch.setenv("WATCHDOG_PID", "1")
        monkeypatch.setattr(watchdog, "EVERY", 3_600.0)
        watchdog.start()
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        watchdog.start()
        for _ in range(2):
            assert await asyncio.get_running_loop().sock_recv(systemd, 100) == b"WATCHDOG=1"


async def test_groups_stop_one_after_the_other() -> None:
    order: list[str] = []

    def note(process: Process) -> None:
        process.ended.add_done_callback(lambda _: order.append(process.program.name))

    async with Running("API", "worker") as running:
        for process in running.tree.processes():
            note(process)
    assert order == ["API", "worker"]


async def test_what_does_not_end_in_time_is_killed() -> None:
    async with Running("worker", code=DEAF, patience=0.2) as running:
        (process,) = running.tree.processes()
        await running.stop()
        assert process.ended.result() == -signal.SIGKILL
        assert "was killed" in running.said[0]


async def test_a_second_signal_kills_at_once() -> None:
    async with Running("worker", code=DEAF, patience=3_600) as running:
        (process,) = running.tree.processes()
        running.hurry.set()
        await running.stop()
        assert process.ended.result() == -signal.SIGKILL


async def test_why_it_did_not_start_is_in_the_last_lines_of_its_log(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "raise SystemExit('no such port')")
    broken = Process(Program("API", command, log=tmp_path / "API.log"))
    assert await broken.ended == 1
    problem = broken.why("did not start")
    assert isinstance(problem, DidNotStart)
    assert str(problem) == "API did not start; its log ends with\n    no such port"


def test_children_die_with_their_parent_even_if_it_is_killed() -> None:
    parent = """
import asyncio, sys
from webhook_gateway.crypto.master_keys import new_master_key
from webhook_gateway.host import supervisor, watchdog
from webhook_gateway.host.processes import Process, Program
async def main():
    print(Process(Program("child", (sys.executable, "-c", "import signal; signal.pause()"))).pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        child = os.pidfd_open(int(process.stdout.readline()))
        process.kill()
        gone, _, _ = select.select([child], [], [], 10)
        os.close(child)
    assert gone, "the child outlived its parent"


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0.5), (1, 0.5), (2, 1.0), (3, 2.0), (50, LONGEST_DELAY)])
def test_the_wait_before_a_restart_grows_to_a_limit(failures: int, seconds: float) -> None:
    assert delay_before_restart(failures) == seconds


@pytest.mark.parametrize(("status", "words"), [(0, "ended with status 0"), (-9, "was ended by SIGKILL")])
def test_an_ending_is_told_in_words(status: int, words: str) -> None:
    assert ending(status) == words
