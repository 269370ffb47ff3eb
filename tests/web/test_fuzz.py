"""What the OpenAPI document says holds for requests that nobody would write: schemathesis makes them up."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx
import pytest

from tests.web.serving import Api
from tests.web.world import make_world

SECONDS = os.environ.get("FUZZ_SECONDS", "20")
SEED = os.environ.get("FUZZ_SEED", "20261123")

INTERPRETERS_BUG = "AST constructor recursion depth mismatch"
"""CPython 3.11 says so, wrongly, when two threads of the fuzzer look up its own source: then one goes on alone."""
NOT_SAID = {
    # A document can't say which URLs policy allows, or that an id has to exist: such requests get 4xx, rightly.
    "positive_data_acceptance",
    # What is created is asked for again by test_endpoints and test_authorisation.
    "ensure_resource_availability",
    "use_after_free",
}


JUDGED_ONE_BY_ONE = """
[[operations]]
include-operation-id = "postEvents"
checks.negative_data_rejection.expected-statuses = ["200", "4xx"]
"""
"""A batch is accepted whatever is wrong with one of its events, which is refused alone."""


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_no_request_meets_an_answer_that_the_document_does_not_describe(
    api: Api, admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    await make_world(api, admin, api.tenant_id)
    key = await api.make_key("admin", "payload:read")
    for workers in (2, 1):
        status, output = await fuzz(f"{api.url}/openapi.json", key, workers, tmp_path)
        if INTERPRETERS_BUG not in output:
            break
    assert status == 0, output


async def fuzz(document: str, key: str, workers: int, directory: Path) -> tuple[int | None, str]:
    """The exit status of one run, and what it printed."""
    (directory / "schemathesis.toml").write_text(JUDGED_ONE_BY_ONE)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", document),
        *("--header", f"Authorization: Bearer {key}"),
        *("--max-time", SECONDS, "--seed", SEED, "--workers", str(workers)),
        *("--phases", "examples,coverage,fuzzing"),
        *("--request-timeout", "40"),  # who tries an endpoint may wait for 20 seconds
        *("--exclude-checks", ",".join(sorted(NOT_SAID))),
        *("--suppress-health-check", "all", "--warnings", "off", "--continue-on-failure"),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "NO_COLOR": "1"},
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()
