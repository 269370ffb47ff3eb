"""Sample partners as real processes."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from examples.partners.running import running
from tests.examples.gateways import RunningGateway, gateway_up
from tests.examples.sending import SECRET, Sample, Start

CATALOGUE = Path(__file__).parents[2] / "src" / "webhook_gateway" / "intake" / "catalogue.json"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts samples that share one data folder and end with the test."""
    with ExitStack() as stack:

        def start_one(name: str, *flags: str, **env: str) -> Sample:
            module = f"examples.{name}" if name == "claims_desk" else f"examples.partners.{name}"
            env = {"WEBHOOK_SECRET": SECRET, **env}
            run = stack.enter_context(running(module, "--data", str(tmp_path), *flags, env=env))
            return stack.enter_context(Sample(run))

        yield start_one


@pytest.fixture
def mail_server(start: Start) -> tuple[Sample, str]:
    """A running mail sink, and its SMTP address."""
    sink = start("smtp_sink", "--smtp-port", "0")
    return sink, sink.run.lines[0].removeprefix("smtp on ")


@pytest.fixture(scope="session")
def gateway() -> Iterator[RunningGateway]:
    with gateway_up() as running_gateway:
        yield running_gateway


@pytest.fixture
def catalogue() -> dict[str, Any]:
    return {entry["type"]: entry for entry in json.loads(CATALOGUE.read_text())}
