"""Who got what, on the machine itself."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import Operator
from webhook_gateway.rules import ids

Cli = Callable[..., subprocess.CompletedProcess[str]]
SENT = """
INSERT INTO subscribers (id, tenant_id, name) SELECT id, id, 'Insurer' FROM tenants;
INSERT INTO endpoints (id, tenant_id, subscriber_id, url, event_types)
SELECT id, id, id, 'https://partner.example/in?token=secret', '{*}' FROM tenants;
INSERT INTO endpoint_revisions (endpoint_id, revision, tenant_id, subscriber, host, permitted_types, event_types,
                                permitted_content)
SELECT id, 1, id, 'Insurer', 'partner.example', '{*}', '{*}', '{"level": "full", "subject": true}' FROM tenants;
INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state, created_at)
SELECT id, id, id, id, 'lab_result.final', 1, 1, 'delivered', now() FROM tenants;
INSERT INTO attempts (delivery_id, id, tenant_id, attempt, started_at, duration, phase, outcome, status, revision,
                      body_digest)
SELECT id, id, id, 1, now(), 0.1, 'answered', 'accepted', 200, 1, '\\x00' FROM tenants
"""


@pytest.fixture
def operator(cli: Cli, database_url: str) -> Operator:
    made = Operator(cli, database_url)
    assert made.run("keys", "create", "ops", "--role", "admin").returncode == 0
    made.execute(SENT)
    return made


def test_what_one_partner_got_is_a_table_json_or_csv(operator: Operator) -> None:
    subscriber = operator.fetch("SELECT id FROM subscribers")[0]["id"]
    whose = ("disclosures", "--subscriber", ids.render(ids.SUBSCRIBER, subscriber), "--from", "2020-01-01")
    shown = operator.run(*whose)
    assert (shown.returncode, "partner.example" in shown.stdout, "secret" in shown.stdout) == (0, True, False)
    (one,) = json.loads(operator.run(*whose, "--json").stdout)
    (row,) = csv.DictReader(operator.run(*whose, "--csv").stdout.splitlines())
    assert (one["reached"], one["host"], one["subscriber"]) == (row["reached"], row["host"], row["subscriber"])
    assert (row["reached"], row["content"], row["times"]) == ("confirmed", "full", "1")
    assert operator.run(*whose, "--to", "2020-02-01", "--json").stdout.strip() == "[]"


def test_a_file_is_verified_and_nothing_is_said_of_nobody(operator: Operator, tmp_path: Path) -> None:
    event = ids.render(ids.EVENT, operator.fetch("SELECT id FROM tenants")[0]["id"])
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"id": event}))
    (one,) = json.loads(operator.run("disclosures", "--verify", str(body), "--json").stdout)
    assert one["matches"] is False
    assert "False" in operator.run("disclosures", "--verify", str(body)).stdout
    body.write_text("{}")
    for arguments in (("--verify", str(body)), (), ("--event", event, "--patient"), ("--event", "evt_1")):
        refused = operator.run("disclosures", *arguments)
        assert (refused.returncode, refused.stdout) == (2, ""), arguments


def test_a_patient_is_named_on_standard_input_only(operator: Operator, cli: Cli) -> None:
    found = cli("disclosures", "--patient", "--csv", stdin="zzcanary\n", **operator._settings)
    assert (found.returncode, found.stdout.count("\n")) == (0, 1)
    (target,) = operator.fetch("SELECT target FROM audit_log WHERE action = 'disclosures.searched'")
    assert "zzcanary" not in target["target"]
