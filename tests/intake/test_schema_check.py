"""A new schema is checked in a process of its own, and whatever becomes of that process, there is an answer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from webhook_gateway.intake import schema_check
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.rules.schema_cost import SchemaRefused


async def test_a_good_schema_has_no_faults_and_a_bad_example_has_places() -> None:
    schema = {"properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]}
    assert await Catalogue().check(schema, {"minutes": 3}) == ()
    (fault,) = await Catalogue().check(schema, {"minutes": "3"})
    assert (fault.pointer, fault.rule) == ("/minutes", "type")


async def test_a_bad_schema_is_refused_at_its_place() -> None:
    with pytest.raises(SchemaRefused) as refused:
        await Catalogue().check({"items": {"type": "nonsense"}}, [])
    assert refused.value.pointer == "/items/type"


@pytest.mark.parametrize(
    "stuck",
    [
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "raise SystemExit(3)",
    ],
)
async def test_a_check_that_takes_too_long_is_killed_and_the_schema_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stuck: str
) -> None:
    """An interpreter that gets stuck as native code may: deaf, dead, at its end."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!{sys.executable}\n{stuck}\n")
    interpreter.chmod(0o700)
    monkeypatch.setattr(schema_check, "WAIT", 1.0)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(SchemaRefused, match="takes too much to check"):
        await Catalogue().check({}, {})


def test_what_takes_long_to_compile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As costs are bounded beforehand nothing is known to: so the bound is lowered here, in the process itself."""
    monkeypatch.setattr(schema_check, "COMPILE", -1.0)
    with pytest.raises(SchemaRefused, match="takes too much to check"):
        schema_check._check({}, {})


async def test_nothing_of_our_secrets_reaches_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    interpreter, seen = tmp_path / "python", tmp_path / "seen"
    interpreter.write_text(
        f"#!{sys.executable}\nimport os\nopen({str(seen)!r}, 'w').write(repr(dict(os.environ)))\nraise SystemExit(1)\n"
    )
    interpreter.chmod(0o700)
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret@nowhere/")
    monkeypatch.setenv("WEBHOOK_GATEWAY_MASTER_KEYS", "secret")
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(SchemaRefused):
        await Catalogue().check({}, {})
    assert "secret" not in seen.read_text()
