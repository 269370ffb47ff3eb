"""The database's time, carried on by a monotonic clock that the test moves."""

from __future__ import annotations

import pytest

from webhook_gateway import telemetry
from webhook_gateway.rules import ids
from webhook_gateway.store import clock as module
from webhook_gateway.store.clock import LASTS, STEP, Clock

NOW = 1_800_000_000.0


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of monotonic time."""
    found = [1_000.0]
    monkeypatch.setattr(module, "monotonic", lambda: found[0])
    return found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    lines: list[tuple[str, int]] = []
    for name in ("clock_stepped", "clock_settled"):
        monkeypatch.setattr(telemetry, name, lambda seconds, name=name: lines.append((name, round(seconds))))
    return lines


@pytest.fixture
def clock(moment: list[float]) -> Clock:
    made = Clock()
    made.set(NOW)
    return made


@pytest.mark.parametrize("drift", [0.2, -0.2, STEP, -STEP])
def test_it_follows_a_database_that_drifts(clock: Clock, told: list[tuple[str, int]], drift: float) -> None:
    clock.set(NOW + drift)
    assert (clock.now(), clock.is_certain(), told) == (NOW + drift, True, [])


@pytest.mark.parametrize("step", [STEP + 1, -STEP - 1, 86_400.0])
def test_it_goes_on_by_the_time_before_until_the_database_is_back(
    clock: Clock, moment: list[float], told: list[tuple[str, int]], step: float
) -> None:
    for _ in range(3):
        clock.set(NOW + moment[0] - 1_000 + step)
        assert not clock.is_certain()
        moment[0] += LASTS / 4
        assert clock.now() == NOW + moment[0] - 1_000
    clock.set(clock.now() + 0.5)
    assert (clock.is_certain(), clock.steps) == (True, 1)
    assert told == [("clock_stepped", step), ("clock_settled", 0)]


def test_it_follows_a_step_that_lasts_and_counts_a_further_one_anew(
    clock: Clock, moment: list[float], told: list[tuple[str, int]]
) -> None:
    clock.set(NOW + 3_600)
    moment[0] += LASTS - 1
    clock.set(NOW + 7_200)
    moment[0] += LASTS - 1
    clock.set(NOW + 7_200 + LASTS - 1)
    assert not clock.is_certain()
    moment[0] += 1
    clock.set(NOW + 7_200 + LASTS)
    assert (clock.now(), clock.is_certain()) == (NOW + 7_200 + LASTS, True)
    assert [line for line, _ in told] == ["clock_stepped", "clock_stepped", "clock_settled"]


def test_ids_are_of_its_time_and_each_is_higher_than_the_one_before(clock: Clock) -> None:
    made = [clock.new_id() for _ in range(1_000)]
    clock.set(NOW - 1)
    made += [clock.new_id() for _ in range(1_000)]
    assert made == sorted(set(made))
    for one in made:
        assert (one.version, one.variant) == (7, "specified in RFC 4122")
        assert abs(ids.moment_of(one).timestamp() - NOW) <= 0.002
