"""The synthetic day: valid by the catalogue, coherent, reproducible and about nobody."""

import json
import re
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import jsonschema_rs
import pytest

from examples.hospital_day import ADDRESSED, FILTERED, Event, hospital_day

SEEDS = range(20)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_event_obeys_the_catalogue(seed: int, catalogue: dict[str, Any]) -> None:
    for event in hospital_day(seed):
        entry = catalogue[event.type]
        jsonschema_rs.validate(entry["schema"], event.data, validate_formats=True)
        assert event.ordering_key == entry["ordering_key"].format(**event.data)
        assert set(event.data) <= set(entry["example"]) | {"contact"}


def test_a_day_holds_every_workflow() -> None:
    counts = Counter(event.type for event in hospital_day(1))
    assert set(counts) == {
        *("appointment.scheduled", "appointment.rescheduled", "appointment.cancelled"),
        *("payment.processed", "payment.failed", "payment.refunded"),
        *("lab_order.placed", "lab_result.preliminary", "lab_result.final", "lab_result.corrected"),
        *("medical_record.updated", "insurance_claim.submitted"),
        *("staff_shift.assigned", "staff_shift.changed", "staff_shift.cancelled"),
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_the_versions_of_one_thing_count_up_from_one(seed: int) -> None:
    versions: dict[str, list[int]] = defaultdict(list)
    for event in hospital_day(seed):
        if "version" in event.data:
            versions[event.ordering_key].append(event.data["version"])
    assert versions
    assert all(counted == list(range(1, len(counted) + 1)) for counted in versions.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_refund_follows_its_payment_and_a_result_its_order(seed: int) -> None:
    seen: set[tuple[str, str]] = set()
    for event in hospital_day(seed):
        if event.type == "payment.refunded":
            assert ("payment.processed", event.ordering_key) in seen
        if event.type.startswith("lab_result."):
            assert ("lab_order.placed", event.ordering_key) in seen
        seen.add((event.type, event.ordering_key))


def test_the_same_seed_gives_the_same_day_and_another_seed_another() -> None:
    assert list(hospital_day(3)) == list(hospital_day(3))
    assert list(hospital_day(3)) != list(hospital_day(4))


def test_more_patients_make_a_longer_day_and_none_makes_none() -> None:
    assert list(hospital_day(1, patients=0)) == []
    assert len(list(hospital_day(1, patients=12))) > len(list(hospital_day(1, patients=6)))


@pytest.mark.parametrize("seed", SEEDS)
def test_claims_for_one_insurer_are_addressed_to_it_and_nothing_else_is(seed: int) -> None:
    day = list(hospital_day(seed))
    claims = [event for event in day if event.type == "insurance_claim.submitted"]
    assert {event.data["payer_id"] for event in claims} == {ADDRESSED, FILTERED}
    for event in day:
        assert event.to == ([ADDRESSED] if event.data.get("payer_id") == ADDRESSED else None)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_address_belongs_to_nobody(seed: int) -> None:
    text = json.dumps([event.data for event in hospital_day(seed)])
    assert all(address.endswith("@example.org") for address in re.findall(r"[\w.]+@[\w.]+", text))
    assert all(phone.startswith("+1202555") for phone in re.findall(r"\+\d{11}", text))


def test_stories_of_several_patients_run_side_by_side() -> None:
    day: list[Event] = list(hospital_day(1))
    subjects = [event.subject for event in day]
    changes = sum(before != after for before, after in pairwise(subjects))
    assert changes > len(set(subjects))
