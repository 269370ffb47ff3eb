"""The systemd units: valid, closed to all that the gateway does not need, and as patient as its programs are."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from webhook_gateway.rules.deadlines import API_TREE_KILLED_AFTER, WORKER_TREE_KILLED_AFTER
from webhook_gateway.settings import Settings

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
API, WORKER = UNITS / "webhook-gateway-api.service", UNITS / "webhook-gateway-worker.service"
PROGRAM = "/opt/webhook-gateway/bin/webhook-gateway"

systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian: systemd)")
each = pytest.mark.parametrize("unit", [API, WORKER], ids=lambda unit: unit.stem)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)


@systemd
@each
def test_a_unit_is_exposed_to_little(unit: Path) -> None:
    said = analyze("security", "--offline=true", "--no-pager", "--threshold=20", str(unit))  # in tenths
    assert said.returncode == 0, said.stdout + said.stderr


@systemd
@each
def test_a_unit_is_valid(unit: Path, tmp_path: Path) -> None:
    copied = tmp_path / unit.name
    copied.write_text(unit.read_text().replace(PROGRAM, "/bin/true"))
    said = analyze("verify", "--man=no", str(copied))
    assert unit.stem not in said.stderr, said.stderr


def test_they_wait_for_their_programs_to_end() -> None:
    assert f"TimeoutStopSec={API_TREE_KILLED_AFTER:g}\n" in API.read_text()
    assert f"TimeoutStopSec={WORKER_TREE_KILLED_AFTER:g}\n" in WORKER.read_text()


def test_their_environment_names_settings_and_holds_no_secret() -> None:
    text = (UNITS / "environment").read_text()
    given = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", text, re.MULTILINE))
    known = {"DATABASE_URL", *(f"WEBHOOK_GATEWAY_{name.upper()}" for name in Settings.model_fields)}
    assert given.keys() <= known
    assert not re.search(r"//[^/@]*:[^/@]*@", given["DATABASE_URL"])
    assert "WEBHOOK_GATEWAY_MASTER_KEYS" not in given


def test_they_differ_in_what_they_run_and_in_how_long_it_takes_to_end() -> None:
    ours, theirs = API.read_text().splitlines(), WORKER.read_text().splitlines()
    differing = {one.partition("=")[0] for one in set(ours) ^ set(theirs) if not one.startswith("#")}
    assert differing == {"Description", "ExecStart", "TimeoutStopSec"}
