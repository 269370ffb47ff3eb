"""A whole gateway, run as its users run it, with partners of this machine allowed."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class RunningGateway:
    url: str
    key: str  # an administrator's
    data: Path


@contextmanager
def gateway_up() -> Iterator[RunningGateway]:
    """`webhook-gateway up --development` with a database of its own; ends with the block."""
    # Not pytest's own temporary directory: as root PostgreSQL runs as another account, which could not reach it.
    data = Path(tempfile.mkdtemp(prefix="webhook-gateway-test-"))
    data.chmod(0o711)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WEBHOOK_", "DATABASE_URL"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "webhook_gateway.cli", "up", "--development", "--port", "0"],
        env={**kept, "PYTHONPATH": str(CHECKOUT / "src"), "WEBHOOK_GATEWAY_DATA": str(data / "data")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        with process:
            assert process.stdout is not None
            said: dict[str, str] = {}
            for line in process.stdout:
                name, _, value = line.strip().partition(" ")
                said[name] = value.strip()
                if name == "ready;":
                    break
            try:
                yield RunningGateway(said["API"], said["key"], data / "data")
            finally:
                process.terminate()
                process.wait(60)
    finally:
        shutil.rmtree(data)
