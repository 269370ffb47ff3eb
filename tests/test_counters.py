"""What several processes count together is shown as their sum, by whichever of them is asked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from webhook_gateway import counters

COUNT = """
from webhook_gateway import counters, telemetry
telemetry.accepted_events.inc(3)
telemetry.refused_events.labels("schema").inc()
telemetry.append_seconds.observe(0.03)
print(counters.shown().decode())
"""


def test_whoever_is_asked_shows_the_sum_and_one_that_is_started_again_goes_on() -> None:
    with counters.shared_by(2) as directory:
        assert directory is not None
        for expected, number in enumerate(("1", "2", "1"), start=1):
            shown = count_in(directory / number)
            assert shown["webhook_gateway_events_accepted_total", ()] == 3 * expected
            assert shown["webhook_gateway_events_refused_total", ("schema",)] == expected
            assert shown["webhook_gateway_append_seconds_bucket", ("0.05",)] == expected
            assert shown["webhook_gateway_requests_in_flight", ()] == 0
        assert len(list(directory.iterdir())) == 2 * len({"counter", "histogram", "gauge"})
    assert not directory.exists()


def test_one_process_needs_no_directory() -> None:
    with counters.shared_by(1) as directory:
        assert directory is None


def test_a_directory_that_was_cleared_away_stops_nobody(tmp_path: Path) -> None:
    assert count_in(tmp_path / "gone" / "1")["webhook_gateway_events_accepted_total", ()] == 3


def test_what_a_killed_gateway_left_behind_is_removed_and_what_a_living_one_uses_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(counters, "MEMORY", tmp_path)
    left, new = tmp_path / f"{counters.PREFIX}left", tmp_path / f"{counters.PREFIX}new"
    for directory in left, new:
        directory.mkdir()
        (directory / "counter_1.db").touch()
    os.utime(left, (0, 0))
    with counters.shared_by(2) as living:
        assert living is not None
        os.utime(living, (0, 0))
        with counters.shared_by(2) as another:
            assert set(tmp_path.iterdir()) == {living, another, new}


def test_without_any_place_to_write_the_gateway_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(counters, "MEMORY", tmp_path / "nowhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with counters.shared_by(2) as directory:
        assert directory is None


def count_in(share: Path) -> dict[tuple[str, tuple[str, ...]], float]:
    """What a process with this part of a share shows after it has counted."""
    ran = subprocess.run(
        [sys.executable, "-c", COUNT],
        env={**os.environ, counters.SHARE: str(share)},
        check=True,
        capture_output=True,
        text=True,
    )
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(ran.stdout)
        for sample in family.samples
    }
