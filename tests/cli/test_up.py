"""`up` is a whole gateway in one process tree, and leaves nothing behind."""

import json
import os
import re
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from webhook_gateway import cores
from webhook_gateway.client import Gateway, Refused
from webhook_gateway.crypto.master_keys import new_master_key

Cli = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
ORDER = {"order_id": "ord_1", "patient_id": "pat_1", "ordering_practitioner_id": "prac_1", "priority": "stat"}


class Up:
    """A running `up`, with what it printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.printed: dict[str, str] = {}
        assert process.stdout is not None
        for line in process.stdout:
            name, _, value = line.strip().partition(" ")
            self.printed[name] = value.strip()
            if name == "ready;":
                return
        assert process.stderr is not None
        raise AssertionError(process.stderr.read())

    @property
    def url(self) -> str:
        return self.printed["API"]

    def descendants(self) -> dict[int, str]:
        """Every process below it, with its command."""
        parents: dict[int, tuple[int, str]] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                fields = re.match(r"\d+ \(.*\) \S (\d+)", (entry / "stat").read_text(), re.DOTALL)
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if fields is not None:
                parents[int(entry.name)] = (int(fields[1]), command)
        found = {self.process.pid}
        while more := {pid for pid, (parent, _) in parents.items() if parent in found} - found:
            found |= more
        return {pid: parents[pid][1] for pid in found - {self.process.pid}}

    def children(self, word: str) -> int:
        return sum(f" {word} " in command for command in self.descendants().values())

    def child(self, word: str) -> int:
        return next(pid for pid, command in self.descendants().items() if f" {word} " in command)


@pytest.fixture
def data(environment: dict[str, str], place: Path) -> Path:
    environment["WEBHOOK_GATEWAY_DATA"] = str(place / "data")
    return place / "data"


def watch(pids: dict[int, str]) -> Callable[[], list[str]]:
    """Takes hold of processes; what is returned waits for all of their ends, and names those that don't come."""
    handles = {os.pidfd_open(pid): command for pid, command in pids.items()}

    def left() -> list[str]:
        found = [command for handle, command in handles.items() if not select.select([handle], [], [], 10)[0]]
        for handle in handles:
            os.close(handle)
        return found

    return left


def test_up_brings_everything_and_sigterm_leaves_nothing_behind(cli: Cli, start: Start, data: Path) -> None:
    up = Up(start("up", "--port", "0", "--development"))
    assert httpx.get(f"{up.url}/readyz", trust_env=False).status_code == 200
    assert httpx.get(up.printed["docs"], trust_env=False).status_code == 200
    assert up.printed["console"].startswith(f"{up.printed['API']}/console/login#whc_")
    with Gateway(up.url, up.printed["key"]) as gateway:
        assert gateway.post_event("lab_order.placed", ORDER).id.startswith("evt_")

    apis, workers = cores.shared(cores.AUTO, cores.AUTO, cores.usable())
    assert (up.children("serve"), up.children("work")) == (apis, workers)

    # The other commands find the embedded database by themselves.
    status = json.loads(cli("status", "--json").stdout)
    assert 1 <= len(status["workers"]) <= workers
    assert cli("check").returncode == 0
    assert json.loads(cli("keys", "list", "--json").stdout)[0]["name"] == "first administrator"

    left = watch(up.descendants())
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(60) == 0
    assert left() == []
    assert cli("status").returncode == 2, "the database went with it"

    again = Up(start("up", "--port", "0"))
    assert "key" not in again.printed, "the first key is shown once"
    with Gateway(again.url, up.printed["key"]) as gateway:
        assert len(gateway.get("/v1/events")["items"]) == 1


def test_killed_itself_it_takes_everything_with_it(start: Start, data: Path) -> None:
    up = Up(start("up", "--port", "0"))
    left = watch(up.descendants())
    up.process.kill()
    assert left() == []


def test_a_child_that_dies_is_started_again_on_the_same_address(start: Start, data: Path) -> None:
    up = Up(start("up", "--port", "0"))
    for word in ("serve", "work"):
        dead = up.child(word)
        os.kill(dead, signal.SIGKILL)
        assert up.process.stderr is not None
        said = next(line for line in up.process.stderr if "starting it again" in line)
        assert f"(process {dead}) was ended by SIGKILL" in said
    # The listening socket outlives the API's processes: whoever connects meanwhile only waits.
    assert httpx.get(f"{up.url}/readyz", timeout=30, trust_env=False).status_code == 200


@pytest.mark.parametrize(("command", "half"), [("serve --port 0", "API"), ("work", "worker")])
@pytest.mark.parametrize("asked", ["", " --processes auto"])
def test_serve_and_work_alone_take_every_core_and_say_so(
    start: Start, database_url: str, command: str, half: str, asked: str
) -> None:
    settings = {"DATABASE_URL": database_url, "WEBHOOK_GATEWAY_MASTER_KEYS": new_master_key()}
    process = start(*(command + asked).split(), settings=settings)
    assert process.stderr is not None
    said = next(line for line in process.stderr if line.startswith(f"{half} processes"))
    assert said.startswith(f"{half} processes: {cores.usable()}, one for each core")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_no_endpoint_may_be_where_serve_is_told_to_listen(
    cli: Cli, start: Start, database_url: str, processes: str
) -> None:
    settings = {"DATABASE_URL": database_url, "WEBHOOK_GATEWAY_MASTER_KEYS": new_master_key()}
    settings |= {"WEBHOOK_GATEWAY_DEVELOPMENT": "true"}
    key = cli("keys", "create", "ops", "--role", "admin", **settings).stdout.strip()
    process = start("serve", "--host", "127.0.0.2", "--port", "0", "--processes", processes, settings=settings)
    assert process.stderr is not None
    url = next(line.split()[-1] for line in process.stderr if "listens on" in line)
    with Gateway(url, key) as gateway:
        subscriber = gateway.create_subscriber("laboratory", event_types=["lab_result.*"])
        with pytest.raises(Refused, match="own_origin"):
            gateway.create_endpoint(subscriber.id, f"{url}/v1/events", ["lab_result.*"])
        gateway.create_endpoint(subscriber.id, "http://127.0.0.3:9000/", ["lab_result.*"])


@pytest.mark.parametrize("number", ["0", "257", "some"])
def test_a_number_of_processes_that_is_none_is_refused_with_what_to_write(
    cli: Cli, database_url: str, number: str
) -> None:
    settings = {"DATABASE_URL": database_url, "WEBHOOK_GATEWAY_MASTER_KEYS": new_master_key()}
    by_option = cli("work", "--processes", number, **settings)
    by_setting = cli("work", **settings, WEBHOOK_GATEWAY_WORKER_PROCESSES=number)
    for found, named in ((by_option, "--processes"), (by_setting, "WEBHOOK_GATEWAY_WORKER_PROCESSES")):
        assert found.returncode == 2
        assert named in found.stderr
        assert "1 to 256, or auto" in found.stderr


def test_a_start_that_fails_leaves_nothing_behind_and_says_why(cli: Cli, data: Path) -> None:
    data.mkdir(mode=0o711)
    (data / "master.key").write_text("not a key")
    (data / "master.key").chmod(0o600)
    found = cli("up", "--port", "0")
    assert found.returncode == 2
    assert "master.key can't be used" in found.stderr
    assert not (data / "database_url").exists()
