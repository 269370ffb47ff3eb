"""The demo is the whole product at once: it has to account for every event, and to leave nothing behind."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from webhook_gateway.demo.day import Account

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CLOSING = re.compile(
    r"demo: accepted=(\d+) deliveries=(\d+) delivered=(\d+) dead=(\d+) lost=(\d+) misdelivered=(\d+) "
    r"bad_signatures=(\d+)"
)


def start(place: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "webhook_gateway.cli", "demo", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(place), "COLUMNS": "200", **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_hospital_day_reaches_every_partner_and_the_demo_ends_by_itself(place: Path) -> None:
    # What this shell is set up for must not matter, least of all somebody's real database.
    others = {"DATABASE_URL": "postgresql://real@db.example/hospital", "WEBHOOK_GATEWAY_ALLOW_HTTP": "nonsense"}
    with start(place, "--exit", "--seed", "11", "--patients", "4", **others) as demo:
        output, errors = demo.communicate(timeout=150)
    assert demo.returncode == 0, output + errors
    closing = CLOSING.fullmatch(output.splitlines()[-1])
    assert closing is not None, output
    accepted, deliveries, delivered, *bad = map(int, closing.groups())
    assert accepted > 0
    assert deliveries == delivered >= accepted / 2
    assert bad == [0, 0, 0, 0]

    # Each insurer decides on its own claims only, and the decisions go to who does the billing.
    for insurer, claims in (("insurer", 1), ("other_insurer", 2)):
        assert len(re.findall(rf" {insurer} +202 .* decided: ", output)) == claims
    assert len(re.findall("claims_desk +posts an insurer's .* to billing as ", output)) == 3

    # The retries can be seen: one refused twice, one was down and came back. The insurer's decision returned, too.
    assert len(re.findall(r"notifier +503 ", output)) == 2
    assert re.search(r"staff_notifier +is down, connection refused", output)
    assert re.search(r"staff_notifier +is back", output)
    assert re.search(r"receipts +202 +insurance_claim\.adjudicated", output)
    assert list(place.iterdir()) == [], "its data is removed"


def test_ctrl_c_ends_everything_and_removes_its_data(place: Path) -> None:
    with start(place, "--patients", "1") as demo:
        assert demo.stdout is not None
        said = []
        for line in demo.stdout:
            said.append(line)
            if line.startswith("it stays up until Ctrl-C"):
                break
        assert re.search(r"^console +http://127\.0\.0\.1:\d+/console/login#whc_", "".join(said), re.MULTILINE)
        told = dict(line.split()[:2] for line in said if re.match("(API|key) ", line))
        headers = {"Authorization": f"Bearer {told['key']}"}
        with httpx.Client(base_url=told["API"], headers=headers, trust_env=False) as gateway:
            (dead,) = gateway.get("/v1/deliveries", params={"state": "dead"}).json()["items"]
            counted = gateway.post("/v1/replays", json={"endpoint_id": dead["endpoint_id"], "dry_run": True}).json()
        assert (dead["subscriber"], counted["count"]) == ("night_desk", 1), "something to send again"
        running = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if str(place) in command_of(entry)]
        assert len(running) >= 10, "PostgreSQL, a mail server, a claims desk and seven partners"
        handles = [os.pidfd_open(pid) for pid in running]
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
        for handle in handles:
            assert select.select([handle], [], [], 10)[0], "a process outlived the demo"
            os.close(handle)
    assert list(place.iterdir()) == []


def command_of(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_a_port_that_is_taken_is_said_to_be_taken(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, start(place, "--port", str(taken.getsockname()[1])) as demo:
        _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "choose another --port" in errors
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("account", "whole"),
    [
        (Account(10, 12, 12, 0, 0, 0, 0), True),
        (Account(10, 12, 11, 1, 0, 0, 0), False),
        (Account(10, 12, 12, 0, 1, 0, 0), False),
        (Account(10, 12, 12, 0, 0, 1, 0), False),
        (Account(10, 12, 12, 0, 0, 0, 1), False),
        (Account(10, 11, 11, 0, 0, 0, 0), False),  # the gateway itself has forgotten one
        (Account(0, 0, 0, 0, 0, 0, 0), False),
    ],
)
def test_an_account_is_whole_only_if_both_sides_agree(account: Account, whole: bool) -> None:
    assert account.is_whole(expected=12) is whole
