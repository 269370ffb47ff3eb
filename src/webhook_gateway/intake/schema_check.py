"""A new schema is checked in a process of its own, which can be killed: a call of the validator can't be stopped.

What schemas may cost is bounded by rules (`rules/schema_cost.py`). This is for what those rules do not know of.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from math import ceil
from time import thread_time
from typing import Any

from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.schema_cost import MOST, SchemaRefused

from .faults import Patience
from .schemas import Schema

WAIT = 10.0
"""Seconds until the process is killed, however busy the machine is."""
PROCESSOR, MEMORY = 2, 1_073_741_824
"""Seconds and bytes that it may use in all, by the kernel's count."""
COMPILE, COMPILED = 0.1, 65_536
"""Seconds and KiB that compiling may take, since every API process does it once more."""
AT_ONCE = 2
TOO_HARD = SchemaRefused("", "It takes too much to check: make it smaller or simpler.")


async def check(schema: Mapping[str, Any], example: object, running: asyncio.Semaphore) -> tuple[Fault, ...]:
    """Where a type's own example breaks its schema; none where it fits. ``running`` holds the others back.

    Raises:
        SchemaRefused: the schema can't be used.
    """
    given = json.dumps([schema, example]).encode()
    # It needs no secret of ours, so it gets none.
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    async with running:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "webhook_gateway.intake.schema_check"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
        )
        try:
            async with asyncio.timeout(WAIT):
                said, _ = await process.communicate(given)
        except TimeoutError:
            raise TOO_HARD from None
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        raise TOO_HARD
    found = json.loads(said)
    if isinstance(found, dict):
        raise SchemaRefused(**found)
    return tuple(Fault(*one) for one in found)


def main() -> None:
    """Reads schema and example, writes faults or why the schema is refused."""
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR, PROCESSOR))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(ceil(WAIT))  # also where nobody is left who would kill it
    schema, example = json.loads(sys.stdin.buffer.read())
    try:
        said: object = [(one.rule, one.remedy, one.pointer) for one in _check(schema, example)]
    except SchemaRefused as refused:
        said = {"pointer": refused.pointer, "remedy": str(refused)}
    sys.stdout.write(json.dumps(said))


def _check(schema: Mapping[str, Any], example: object) -> tuple[Fault, ...]:
    began, before = thread_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    compiled = Schema(schema)
    if thread_time() - began > COMPILE or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > COMPILED:
        raise TOO_HARD
    if compiled.cost_of(json.dumps(example).encode()) > MOST:
        return (compiled.too_much(),)
    return () if compiled.is_valid(example) else compiled.faults(example, Patience())


if __name__ == "__main__":
    main()
