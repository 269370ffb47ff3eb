"""Start a sample as a process of its own and stop it again; used by the tests and by demonstrations."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Running:
    url: str
    lines: tuple[str, ...]  # what the process said before it was ready
    process: subprocess.Popen[str]


@contextmanager
def running(module: str, *flags: str, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run `python -m module flags`, wait for its ready line, and stop it with SIGTERM at the end."""
    command = [sys.executable, "-m", module, *flags]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=PROJECT, env={**os.environ, **(env or {})}
    )
    with process:
        try:
            yield wait_until_ready(process)
        finally:
            process.terminate()


def wait_until_ready(process: subprocess.Popen[str]) -> Running:
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith("listening on "):
            return Running(line.split()[-1], tuple(lines), process)
    raise RuntimeError(f"{process.args!r} ended with {process.wait()} before it was ready")
