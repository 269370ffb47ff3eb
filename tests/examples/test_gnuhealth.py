"""The README for GNU Health, followed step by step on a database of its own, and what it promises."""

import json
import os
import sqlite3
import subprocess
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.examples.gateways import RunningGateway
from tests.examples.laravels import CHECKOUT, STEP, background, environment
from tests.examples.test_receivers import free_port, settled
from webhook_gateway.client import Gateway

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("samples against a gateway"),
    pytest.mark.skipif(
        "GNUHEALTH_TESTS" not in os.environ, reason="installs GNU Health: asked for by GNUHEALTH_TESTS=1"
    ),
]
README = CHECKOUT / "examples" / "gnuhealth" / "README.md"
STEPS: dict[str, str] = dict(STEP.findall(README.read_text()))
POST = STEPS["post"].splitlines()[-1]
TOLD = [
    ("appointment.scheduled", 1),
    ("appointment.rescheduled", 2),
    ("appointment.scheduled", 1),
    ("appointment.no_show", 2),
    ("lab_result.final", 1),
    ("lab_result.corrected", 2),
]
ROLLED_BACK = """
import sys
from datetime import datetime
from trytond.config import config
from trytond.pool import Pool
from trytond.transaction import Transaction

config.update_etc("trytond.conf")
Pool.start()
pool = Pool("gh")
pool.init()
with Transaction().start("gh", 1) as transaction:
    patient = pool.get("gnuhealth.patient").search([], limit=1)[0].id
    booking = {"patient": patient, "appointment_date": datetime(2026, 12, 3, 9), "state": "confirmed"}
    pool.get("gnuhealth.appointment").create([booking])
    print(pool.get("webhook.outbox").search([], count=True))
    transaction.rollback()
"""


@dataclass(frozen=True)
class Hospital:
    """The folder in which the README's steps are done."""

    folder: Path

    def sh(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env={**environment(), **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def did(self, script: str, **env: str) -> str:
        ran = self.sh(script, **env)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def query(self, file: str, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.folder / file)) as database:
            return database.execute(sql).fetchall()

    def waiting(self) -> list[tuple[str, int]]:
        rows = self.query("data/gh.sqlite", "SELECT type, data FROM webhook_outbox ORDER BY id")
        return [(type, json.loads(data)["version"]) for type, data in rows]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    folder = tmp_path_factory.mktemp("gnuhealth")
    (folder / "webhook-gateway").symlink_to(CHECKOUT)
    made = Hospital(folder)
    made.did(STEPS["install"] + STEPS["database"])
    return made


def test_appointments_and_laboratory_results_reach_a_partner_and_what_is_refused_stays_in_sight(
    hospital: Hospital, gateway: RunningGateway
) -> None:
    port = str(free_port())
    there = (("http://127.0.0.1:8080", gateway.url), ("127.0.0.1:9000", f"127.0.0.1:{port}"), ("whk_…", gateway.key))

    def at(script: str) -> str:
        for old, new in there:
            script = script.replace(old, new)
        return script

    endpoint = json.loads(hospital.did(at(STEPS["partner"])))["id"]
    shown = hospital.did(STEPS["morning"])
    assert [line.split()[1:4:2] for line in shown.splitlines()] == [[type, "waits"] for type, _ in TOLD]
    assert hospital.waiting() == TOLD

    # What is rolled back leaves no row, though there was one.
    assert hospital.did(f"gh/bin/python -W ignore -c '{ROLLED_BACK}'") == f"{len(TOLD) + 1}\n"
    assert hospital.waiting() == TOLD

    # A gateway that is away, and a key that is wrong, leave everything where it is.
    away = hospital.sh(POST, GATEWAY_URL=f"http://127.0.0.1:{free_port()}", GATEWAY_API_KEY="whk_x")
    assert (away.returncode, hospital.waiting()) == (os.EX_TEMPFAIL, TOLD), away.stderr
    wrong = hospital.sh(POST, GATEWAY_URL=gateway.url, GATEWAY_API_KEY="whk_x")
    assert (wrong.returncode, hospital.waiting()) == (os.EX_NOPERM, TOLD), wrong.stderr

    receiver = STEPS["receiver"].replace("PORT=9000", f"PORT={port}")
    with background(receiver, hospital.folder) as partner:
        assert partner.stdout is not None
        assert any("listening" in line for line in partner.stdout)
        data = {"WEBHOOK_GATEWAY_DATA": str(gateway.data)}

        # A key that may post results only: its appointments are refused, and stay in sight until they are posted again.
        refused = hospital.sh(at(STEPS["post"]).replace("--event-type 'appointment.*' ", ""), **data)
        assert (refused.returncode, hospital.waiting()) == (1, TOLD[:4]), refused.stderr
        assert refused.stdout.count("403") == 4
        found = settled(partner.stdout, 2)["accepted"]
        posted = hospital.did(at(STEPS["post"]).rstrip() + " --retry", **data)
        assert (posted, hospital.waiting()) == ("", [])
        found |= settled(partner.stdout, 4)["accepted"]
    assert len(found) == len(TOLD)

    with Gateway(gateway.url, gateway.key) as asked:
        asked.post(f"/v1/endpoints/{endpoint}/pause")
    bodies = [json.loads(body) for (body,) in hospital.query("inbox.db", "SELECT body FROM inbox ORDER BY rowid")]
    assert {body["id"] for body in bodies} == found
    events = defaultdict(list)
    for body in bodies:
        thing = body["data"].get("result_id") or f"appointment {body['data']['appointment_id']}"
        events[thing].append((body["type"], body["data"]["version"]))
    assert sorted(events.values()) == sorted([TOLD[:2], TOLD[2:4], TOLD[4:]]), "in order, each"
    values = [body["data"]["observations"][0] for body in bodies if body["type"].startswith("lab_result.")]
    assert [(seen["value"], seen["flag"]) for seen in values] == [("13.1", "N"), ("10.2", "L")]
    assert not any(b"Unforgettable" in body for (body,) in hospital.query("inbox.db", "SELECT body FROM inbox"))
