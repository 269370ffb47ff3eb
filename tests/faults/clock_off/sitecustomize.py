"""Puts the wall clock of a Python process an hour ahead. Monotonic time stays: a wrong clock still ticks evenly."""

import datetime
import time
from datetime import datetime as _datetime
from typing import Any

HOUR = 3_600

_time, _time_ns = time.time, time.time_ns

time.time = lambda: _time() + HOUR
time.time_ns = lambda: _time_ns() + HOUR * 1_000_000_000


class _Kind(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _datetime)


class Ahead(_datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _datetime.now(tz) + datetime.timedelta(seconds=HOUR)

    @classmethod
    def utcnow(cls) -> Any:
        return _datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(seconds=HOUR)


datetime.datetime = Ahead  # type: ignore[misc]
