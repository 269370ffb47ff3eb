"""What PHP applications get: the package of two classes, and the plain sample that posts from an outbox."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.examples.gateways import RunningGateway
from webhook_gateway.client import Gateway

CHECKOUT = Path(__file__).parents[2]
PHP = [*(CHECKOUT / "clients").rglob("*.php"), *(CHECKOUT / "examples").rglob("*.php")]

pytestmark = pytest.mark.xdist_group("samples against a gateway")
needs_php = pytest.mark.skipif(shutil.which("php") is None, reason="needs php")


@pytest.mark.skipif(shutil.which("phpunit") is None, reason="needs phpunit")
def test_the_package_passes_its_own_tests() -> None:
    ran = subprocess.run(["phpunit"], cwd=CHECKOUT / "clients" / "php", capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "OK (" in ran.stdout, "no test was run"


@needs_php
@pytest.mark.parametrize("file", PHP, ids=lambda file: str(file.relative_to(CHECKOUT)))
def test_every_php_file_parses_without_a_warning(file: Path) -> None:
    ran = subprocess.run(["php", "-d", "error_reporting=-1", "-l", file], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == f"No syntax errors detected in {file}"


Sample = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sample(gateway: RunningGateway, tmp_path: Path) -> Sample:
    """Runs `post_event.php` with a database of the test's own: ``sample("post", GATEWAY_URL=…)``."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        known = {
            "DATABASE": f"sqlite:{tmp_path / 'hms.db'}",
            "GATEWAY_URL": gateway.url,
            "GATEWAY_API_KEY": gateway.key,
        }
        command = ["php", str(CHECKOUT / "examples" / "post_event.php"), *arguments]
        return subprocess.run(
            command, env={**os.environ, **known, **env}, capture_output=True, text=True, check=False, timeout=30
        )

    return run


@pytest.mark.slow
@needs_php
def test_an_event_written_with_an_appointment_waits_until_the_gateway_has_it_and_is_taken_once(
    sample: Sample, gateway: RunningGateway, tmp_path: Path
) -> None:
    assert sample("schedule", "apt_1").returncode == 0
    assert sample("schedule", "apt_2").returncode == 0
    before = outbox(tmp_path)
    assert sample("post", GATEWAY_URL="http://127.0.0.1:1").returncode == 75
    assert sample("post", GATEWAY_API_KEY="whk_wrong").returncode == 77
    assert outbox(tmp_path) == before

    with Gateway(gateway.url, gateway.key) as hospital:
        known = {event["id"] for event in hospital.get("/v1/events")["items"]}
        for _ in range(2):  # the second time as if it had crashed before it deleted the rows
            with closing(sqlite3.connect(tmp_path / "hms.db")) as store, store:
                store.executemany("INSERT OR IGNORE INTO outbox VALUES (?, ?, ?, ?)", before)
            assert sample("post").returncode == 0
            assert outbox(tmp_path) == []
        new = [event for event in hospital.get("/v1/events")["items"] if event["id"] not in known]
        assert [event["type"] for event in new] == ["appointment.scheduled"] * 2


@pytest.mark.slow
@needs_php
def test_what_the_gateway_refuses_stays_with_its_reason_and_holds_nobody_up(sample: Sample, tmp_path: Path) -> None:
    sample("schedule", "")  # by the schema an id has at least one character
    sample("schedule", "apt_2")
    refused = sample("post")
    assert refused.returncode == 0
    ((_, _, _, reason),) = outbox(tmp_path)
    assert reason is not None
    assert "/data/appointment_id" in reason
    assert reason in refused.stderr


@needs_php
def test_an_appointment_that_is_not_kept_leaves_no_event(sample: Sample, tmp_path: Path) -> None:
    sample("schedule", "apt_1")
    twice = sample("schedule", "apt_1")
    assert twice.returncode == 255
    assert len(outbox(tmp_path)) == 1


def outbox(folder: Path) -> list[tuple[int, str, str, str | None]]:
    with closing(sqlite3.connect(folder / "hms.db")) as store:
        return store.execute("SELECT place, id, event, refused FROM outbox ORDER BY place").fetchall()
