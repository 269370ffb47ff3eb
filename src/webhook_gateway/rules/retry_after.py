"""What a partner's Retry-After header asks for (RFC 9110, section 10.2.3)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from .retry import RETRY_AFTER_LIMIT

LONGEST = RETRY_AFTER_LIMIT  # a partner may hold its deliveries back for a day, not for longer


def read_retry_after(header: str, now: datetime) -> float | None:
    """Seconds to wait from ``now`` (aware), at most `LONGEST`; None for nonsense or the past. Never raises."""
    header = header.strip()
    if _DIGITS.fullmatch(header):
        return min(float(header), LONGEST)
    try:
        when = parsedate_to_datetime(header.replace(":60 ", ":59 "))  # a leap second
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    if when.tzinfo is None:  # "-0000": UTC of no particular place
        when = when.replace(tzinfo=UTC)
    try:
        seconds = (when - now).total_seconds()
    except OverflowError:
        return None
    return min(seconds, LONGEST) if seconds > 0 else None


_DIGITS = re.compile(r"[0-9]{1,300}")
