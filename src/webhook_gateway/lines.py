"""Lines of the log that come by the thousand, written some together: one alone costs three times as much.

They go past the logger, which cost a tenth of a worker's CPU for them.
"""

from __future__ import annotations

import asyncio
import atexit
import sys
from math import inf

import msgspec

from webhook_gateway import counters

LINGER = 0.25
"""Seconds that a line waits for others. Whoever writes the next one then writes them all; if none comes, a timer does
after as long again: to wake up by that costs more than to write."""
MOST = 64
"""How many wait."""
_ATOMIC = 4096
"""Bytes that are written whole, whoever else writes to the same pipe (pipe(7))."""

_unwritten: list[object] = []
_encode = msgspec.json.Encoder().encode_lines
_due = inf
_timer: asyncio.TimerHandle | None = None


def write_soon(line: object) -> None:
    """``line`` is a struct of its members."""
    global _due, _timer
    loop = asyncio.get_running_loop()
    if not _unwritten:
        _due = loop.time() + LINGER
        _timer = loop.call_later(2.0 * LINGER, write)
    _unwritten.append(line)
    if len(_unwritten) == MOST or loop.time() >= _due:
        _due = inf
        loop.call_soon(write)


@atexit.register
def write() -> None:
    """Those that wait, now. What is to be counted soon is counted with them."""
    if _timer is not None:
        _timer.cancel()
    counters.count()
    lines, begin = _unwritten.copy(), 0
    _unwritten.clear()  # first: a write that fails must not keep those after it from being written
    text = _encode(lines)
    while begin < len(text):
        last = len(text) if len(text) - begin <= _ATOMIC else text.rfind(b"\n", begin, begin + _ATOMIC) + 1
        end = last or text.index(b"\n", begin) + 1  # a line that is longer
        _put(text[begin:end])
        begin = end


def _put(text: bytes) -> None:
    sys.stderr.buffer.write(text)
    sys.stderr.buffer.flush()
