"""What lives as long as a process lies on huge pages, where the kernel has some."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LINUX = tuple(map(int, platform.release().split(".")[:2])) if sys.platform == "linux" else (0, 0)
SHOW = """
from pathlib import Path
from webhook_gateway.host import garbage

def there():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(size.split()[0]) for name, size in (line.split(":") for line in lines)}

kept = [str(number) for number in range(1_000_000)]
before = there()
garbage.relax()
after = there()
print(after["AnonHugePages"] - before["AnonHugePages"], after["Rss"] - before["Rss"])
"""


@pytest.mark.skipif(
    LINUX < (6, 1) or not ENABLED.exists() or "[never]" in ENABLED.read_text(), reason="needs huge pages of Linux 6.1"
)
def test_what_is_there_moves_to_huge_pages_and_takes_no_more_memory() -> None:
    """Kilobytes."""
    said = subprocess.run((sys.executable, "-c", SHOW), stdout=subprocess.PIPE, check=True, text=True).stdout
    moved, more = map(int, said.split())
    assert moved >= 2_048
    assert more < 16_384
