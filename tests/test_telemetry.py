"""Log lines: one that can't be written costs itself, and none after it."""

import asyncio
import subprocess
import sys
from pathlib import Path

LINES = """
import asyncio, os, sys
from uuid import uuid4
from webhook_gateway import telemetry
from webhook_gateway.rules.model import Delivery, Endpoint, Health
from webhook_gateway.rules.outcome import Accepted, Exchange, Phase
from webhook_gateway.rules.verdict import Done, Verdict

endpoint = Endpoint(uuid4(), uuid4(), uuid4(), 1, "https://partner.example/", ("*",))
delivery = Delivery(uuid4(), endpoint.tenant_id, endpoint.id, uuid4(), "lab_result.final", 1, uuid4())

async def main():
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    for target in sys.argv[1:]:
        os.dup2(os.open(target, os.O_WRONLY), 2)
        answered = Exchange(Accepted(200), Phase.ANSWERED, 0.1)
        telemetry.attempt_made(endpoint, delivery, answered, Verdict(Done(), Health()))
        await asyncio.sleep(0)

telemetry.configure("info")
asyncio.run(main())
"""


async def test_a_line_that_could_not_be_written_does_not_silence_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    command = (sys.executable, "-c", LINES, "/dev/full", str(log))
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    await process.communicate()
    assert process.returncode == 0
    assert b'"message":"attempt"' in log.read_bytes()
