"""What was exported from the audit log can't be denied later, and whoever has the file needs nobody's word for it."""

import json
import subprocess
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.support.command_line import Operator
from webhook_gateway.crypto.signatures import new_private_key, public_key_of
from webhook_gateway.operations.change import local_name

Cli = Callable[..., subprocess.CompletedProcess[str]]
ALL = range(1, 6)
"""What the log of `Auditor` holds: the tenant, three keys, and the key that signs heads."""

# As somebody would who is superuser and has read how the hashes are made.
WITHOUT_TRIGGER = "ALTER TABLE audit_log DISABLE TRIGGER ALL; {} ; ALTER TABLE audit_log ENABLE TRIGGER ALL"


class Auditor(Operator):
    """Has a short audit log, and an export of all of it."""

    def __init__(self, cli: Cli, url: str, directory: Path) -> None:
        super().__init__(cli, url)
        for name in ("one", "two", "three"):
            assert self.run("keys", "create", name, "--role", "auditor").returncode == 0
        self.file = directory / "audit.jsonl"
        self.lines = self.export()
        self.file.write_text("".join(self.lines))
        self.key = json.loads(self.lines[-1])["key"]

    def export(self, *arguments: str) -> list[str]:
        found = self.run("audit", "export", *arguments)
        assert found.returncode == 0, found.stderr
        return found.stdout.splitlines(keepends=True)

    def offline(self, *lines: str, since: int = 0, key: str = "") -> dict[str, Any]:
        """What a machine without a database and without master keys says of these lines."""
        self.file.write_text("".join(lines))
        arguments = ("--export", str(self.file), "--public-key", key or self.key, "--since", str(since), "--json")
        return _answer(self.cli("audit", "verify", *arguments))

    def compare(self) -> dict[str, Any]:
        return _answer(
            self.run("audit", "verify", "--export", str(self.file), "--public-key", self.key, "--json"),
        )

    def alter(self, statements: str) -> None:
        self.execute(WITHOUT_TRIGGER.format(statements))


def _answer(found: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(found.stdout)
    assert found.returncode == (0 if answer["whole"] else 1), found.stderr
    return answer


@pytest.fixture
def auditor(cli: Cli, database_url: str, tmp_path: Path) -> Auditor:
    return Auditor(cli, database_url, tmp_path)


def test_an_export_is_checked_without_a_database(auditor: Auditor) -> None:
    found = auditor.offline(*auditor.lines)
    assert (found["whole"], found["entries"], found["compared"]) == (True, len(ALL), False)
    assert found["head"] == json.loads(auditor.lines[-1])


def test_a_head_is_checked_with_any_ed25519(auditor: Auditor) -> None:
    head = json.loads(auditor.run("audit", "head", "--json").stdout)
    assert (head["sequence"], head["key"]) == (len(ALL), auditor.key)
    assert head["hash"] == json.loads(auditor.lines[-2])["hash"]
    signature = b64decode(head.pop("signature"))
    signed = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
    Ed25519PublicKey.from_public_bytes(b64decode(head["key"].removeprefix("whpk_"))).verify(signature, signed)


def test_whoever_changes_a_file_is_found_out(auditor: Auditor) -> None:
    one, two, three, four, five, head = auditor.lines
    cli = f'"actor":"{local_name()}"'
    changed = three.replace(cli, '"actor":"nobody"')
    assert changed != three
    twice = three.replace(cli, f'"actor":"nobody",{cli}')
    for lines, broken_at in (
        ((one, two, changed, four, five, head), 3),
        ((one, two, twice, four, five, head), 3),
        ((one, two, "{}\n", four, five, head), 3),
        ((one, two, "[" * 100_000, four, five, head), 3),
        ((one, two, four, five, head), 3),
        ((two, three, four, five, head), 1),
        ((one, two, four, three, five, head), 3),
        ((one, two, three, head), 4),
        ((head,), 1),
        ((one, two, three, four, five), 6),
        ((one, two, three, four, five, head, five), 6),
    ):
        found = auditor.offline(*lines)
        assert (found["whole"], found["broken_at"]) == (False, broken_at), found["problem"]
        assert found["problem"]


def test_a_chain_that_was_made_anew_does_not_lead_to_the_signed_head(auditor: Auditor) -> None:
    from hashlib import sha256

    lines, previous = [], "00" * 32
    for line in auditor.lines[:-1]:
        entry = json.loads(line) | {"actor": "nobody", "previous_hash": previous}
        del entry["hash"]
        previous = sha256(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        lines.append(json.dumps(entry | {"hash": previous}) + "\n")
    found = auditor.offline(*lines, auditor.lines[-1])
    assert (found["whole"], found["broken_at"]) == (False, 5)
    forged = json.loads(auditor.lines[-1]) | {"hash": previous}
    found = auditor.offline(*lines, json.dumps(forged))
    assert (found["whole"], found["broken_at"]) == (False, None)
    assert "not signed" in found["problem"]


def test_a_head_counts_only_with_the_key_that_was_noted(auditor: Auditor) -> None:
    found = auditor.offline(*auditor.lines, key=public_key_of(new_private_key()))
    assert not found["whole"]
    assert "not signed" in found["problem"]


def test_exports_that_follow_each_other_are_one(auditor: Auditor) -> None:
    auditor.run("keys", "create", "four", "--role", "auditor")
    more = auditor.export("--since", "5")
    assert [json.loads(line)["sequence"] for line in more] == [6, 6]
    assert auditor.offline(*auditor.lines, *more)["entries"] == 6
    assert auditor.offline(*more, since=5)["entries"] == 1
    assert auditor.offline(more[-1], since=6)["whole"]
    assert auditor.offline(*more)["broken_at"] == 1
    assert auditor.run("audit", "export", "--since", "7").returncode == 2


def test_the_database_still_holds_what_was_exported(auditor: Auditor) -> None:
    auditor.run("keys", "create", "four", "--role", "auditor")
    found = auditor.compare()
    assert (found["whole"], found["compared"]) == (True, True)
    unpinned = auditor.run("audit", "verify", "--export", str(auditor.file))
    assert (unpinned.returncode, "--public-key" in unpinned.stderr) == (0, True)


@pytest.mark.parametrize(
    ("statements", "broken_at"),
    [
        ("UPDATE audit_log SET actor = 'somebody else' WHERE sequence = 2", 2),
        ("DELETE FROM audit_log WHERE sequence = 3", 3),
        ("DELETE FROM audit_log WHERE sequence = 5", 5),
        ("DELETE FROM audit_log", 1),
    ],
)
def test_whoever_changes_the_database_is_found_out(auditor: Auditor, statements: str, broken_at: int) -> None:
    auditor.alter(statements)
    found = auditor.compare()
    assert (found["whole"], found["broken_at"], found["compared"]) == (False, broken_at, True)


def test_a_tail_that_was_cut_off_and_written_anew_is_found_by_the_export_alone(auditor: Auditor) -> None:
    auditor.alter("DELETE FROM audit_log WHERE sequence > 3")
    auditor.run("keys", "create", "other", "--role", "auditor")
    auditor.run("keys", "create", "another", "--role", "auditor")
    assert auditor.run("audit", "verify").returncode == 0
    assert auditor.compare()["broken_at"] == 4


def test_the_key_is_made_once_and_noted(auditor: Auditor) -> None:
    auditor.run("audit", "head")
    (entry,) = json.loads(auditor.run("audit", "list", "--target", auditor.key, "--json").stdout)
    assert (entry["actor"], entry["action"], entry["sequence"]) == ("gateway", "audit_key.created", 5)


def test_without_a_database_the_key_has_to_be_given(auditor: Auditor, cli: Cli) -> None:
    found = cli("audit", "verify", "--export", str(auditor.file))
    assert found.returncode == 2
    assert "--public-key" in found.stderr
    assert cli("audit", "verify", "--export", str(auditor.file), "--public-key", "whpk_x").returncode == 2
    assert cli("audit", "verify", "--export", "nowhere", "--public-key", auditor.key).returncode == 2
