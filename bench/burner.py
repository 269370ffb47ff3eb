"""Somebody else on the machine: takes a part of a core for a while, and no more.

python -m bench.burner SHARE SECONDS      SHARE of one core, as 0.5
"""

from __future__ import annotations

import sys
import time

NAP = 0.002


def burn(share: float, seconds: float) -> None:
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds:
        if time.process_time() > share * passed:
            time.sleep(NAP)


if __name__ == "__main__":
    burn(float(sys.argv[1]), float(sys.argv[2]))
