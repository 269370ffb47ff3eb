"""How long a worker's turns on a processor are: asked of the kernel itself."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

TOLD = """
import ctypes, os, platform, struct
from webhook_gateway.host import scheduling

def now():
    attributes = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, 0, attributes, 48, 0) == 0
    _, policy, _, nice, _, turn, _, _ = struct.unpack("IIQiIQQQ", attributes)
    return policy, nice, turn / 1e9

os.nice(3)
before = now()
scheduling.take_long_turns()
print(*before, *now())
"""


def _is_heeded() -> bool:
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}:
        return False
    major, minor = platform.release().split(".")[:2]
    return (int(major), int(minor)) >= (6, 12)


@pytest.mark.skipif(not _is_heeded(), reason="needs Linux 6.12")
def test_a_worker_takes_long_turns_and_stays_as_nice_as_it_was() -> None:
    told = subprocess.run((sys.executable, "-c", TOLD), capture_output=True, text=True, check=True, timeout=60)
    policy, nice, short, after, still_nice, long = map(float, told.stdout.split())
    assert (policy, nice, after, still_nice) == (0, 3, 0, 3)
    assert short < 0.05
    assert long == pytest.approx(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_who_is_scheduled_otherwise_stays_so() -> None:
    batch = TOLD.replace("os.nice(3)", "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))")
    told = subprocess.run((sys.executable, "-c", batch), capture_output=True, text=True, check=True, timeout=60)
    before, after = told.stdout.split()[:3], told.stdout.split()[3:]
    assert before == after
    assert before[0] == "3"
