"""When to leave a failing endpoint alone. Waiting for it uses up no attempts.

Closed → open after ten failures in a row, or when half of at least ten requests within 30 s failed.
Open → half-open when its time is over: one request probes. Success closes it, failure opens it for twice as long.
"""

from __future__ import annotations

from msgspec.structs import replace

from .model import Health

FAILURES_IN_A_ROW = 10
WINDOW = 30.0
WINDOW_AT_LEAST = 10
FIRST_OPENING = 5.0
LONGEST_OPENING = 300.0
DAY = 86_400.0
LAST_DAY = 30
"""Counted from 0: all later days are one, so that they fit into 32 bits."""


def is_open(health: Health, now: float) -> bool:
    return health.open_until is not None and now < health.open_until


def is_probing(health: Health, now: float) -> bool:
    """Half-open: exactly one request may find out whether the endpoint is back."""
    return health.open_until is not None and now >= health.open_until


def after_success(health: Health, now: float) -> Health:
    """Closed again. A silence that the partner asked for stays: the success began before."""
    counted = _count(health, now, failed=False)
    is_failing = health.failures_in_a_row or health.failing_since is not None or health.openings
    if not is_failing and health.open_until is None and health.retry_after_until is None:
        return counted  # as nearly always
    silent = health.retry_after_until is not None and health.retry_after_until > now
    return replace(
        counted,
        failures_in_a_row=0,
        failing_since=None,
        failing_days=0,
        open_until=None,
        openings=0,
        retry_after_until=health.retry_after_until if silent else None,
    )


def after_failure(health: Health, now: float) -> Health:
    since = now if health.failing_since is None else health.failing_since
    day = min(int(max(now - since, 0.0) / DAY), LAST_DAY)
    counted = replace(
        _count(health, now, failed=True),
        failures_in_a_row=health.failures_in_a_row + 1,
        failing_since=since,
        failing_days=health.failing_days | 1 << day,
    )
    if is_open(health, now):
        return counted  # a request that began before the breaker opened: its failure is no news
    if is_probing(health, now) or _trips(counted):
        return _open(counted, now)
    return counted


def _trips(health: Health) -> bool:
    too_many_in_a_row = health.failures_in_a_row >= FAILURES_IN_A_ROW
    half_failed = health.window_total >= WINDOW_AT_LEAST and health.window_failed * 2 >= health.window_total
    return too_many_in_a_row or half_failed


def _open(health: Health, now: float) -> Health:
    length = min(FIRST_OPENING * 2**health.openings, LONGEST_OPENING)
    return replace(
        health, open_until=now + length, openings=health.openings + 1, window_start=now, window_total=0, window_failed=0
    )


def _count(health: Health, now: float, *, failed: bool) -> Health:
    if now - health.window_start >= WINDOW:
        return replace(health, window_start=now, window_total=1, window_failed=int(failed))
    return replace(health, window_total=health.window_total + 1, window_failed=health.window_failed + int(failed))
