"""The shipped event types: how each may be cut, and how each member is tagged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from webhook_gateway.intake.catalogue import EventType, operational, shipped
from webhook_gateway.rules.views import EVERYTHING, cut, faults_of, fits, tree_of

TAGS = {"none", "pseudonym", "quasi", "identifier", "clinical", "financial"}
each_type = pytest.mark.parametrize("known", shipped(), ids=lambda known: known.name)


def leaves(value: Any, way: str = "") -> Iterator[str]:
    """Pointers to all that is no list and no object."""
    match value:
        case dict():
            for name, member in value.items():
                yield from leaves(member, f"{way}/{name}")
        case list():
            for item in value:
                yield from leaves(item, f"{way}/*")
        case _:
            yield way


def numbered(value: Any, numbers: Iterator[int]) -> Any:
    """The same shape with a number of its own in each place."""
    match value:
        case dict():
            return {name: numbered(member, numbers) for name, member in value.items()}
        case list():
            return [numbered(item, numbers) for item in value]
        case _:
            return next(numbers)


@each_type
@pytest.mark.parametrize("content", ["full", "thin", "nothing", "one", "all but one"])
def test_of_each_type_each_content_has_what_is_in_it_and_nothing_else(known: EventType, content: str) -> None:
    data = numbered(known.example, iter(range(1_000_000, 2_000_000)))
    places = list(leaves(data))
    cases: dict[str, list[list[str]]] = {
        "full": [[""]],
        "thin": [list(known.thin)],
        "nothing": [[]],
        "one": [[place] for place in set(places)],
    }
    cases["all but one"] = [[other for other in places if other != place] for place in set(places)]
    for pointers in cases[content]:
        body = json.dumps({"id": "evt_1", "type": known.name, "timestamp": "t", "data": data, "subject": "s"}).encode()
        left = cut(body, EVERYTHING if content == "full" else tree_of(pointers), content == "full")
        kept = {i for i, place in enumerate(places) if any(f"{place}/".startswith(f"{p}/") for p in pointers)}
        assert {i for i in range(len(places)) if str(1_000_000 + i).encode() in left} == kept
        assert (b'"s"' in left) is (content == "full")


@each_type
def test_what_a_thin_body_has_and_where_patients_are_is_in_the_schema(known: EventType) -> None:
    assert not faults_of([*known.thin, *known.patient])
    assert [pointer for pointer in (*known.thin, *known.patient) if not fits(known.schema, pointer)] == []
    assert set(known.patient).isdisjoint(known.thin)


@each_type
def test_each_id_of_a_patient_is_where_the_type_says(known: EventType) -> None:
    ids = {f"/{name}" for name in known.schema["properties"] if name.endswith("patient_id")}
    assert ids == set(known.patient)


def scalars(schema: Mapping[str, Any], tag: str | None = None, way: str = "") -> Iterator[tuple[str, str | None]]:
    tag = schema.get("x-phi", tag)
    if "properties" in schema:
        for name, below in schema["properties"].items():
            yield from scalars(below, tag, f"{way}/{name}")
    elif "items" in schema:
        yield from scalars(schema["items"], tag, f"{way}/*")
    else:
        yield way, tag


@each_type
def test_each_value_of_a_type_about_patients_is_tagged(known: EventType) -> None:
    if known.patient:
        assert [way for way, tag in scalars(known.schema) if tag not in TAGS] == []


@each_type
def test_a_thin_body_has_no_contact_no_finding_and_no_money(known: EventType) -> None:
    tags = dict(scalars(known.schema))
    allowed = {"/status": {"clinical"}, "/payer_id": {"financial"}}
    assert [p for p in known.thin if tags[p] not in {None, "none", "pseudonym", "quasi"} | allowed.get(p, set())] == []


def test_an_amount_is_about_money() -> None:
    tags = [tag for known in shipped() for way, tag in scalars(known.schema) if way.endswith("amount/value")]
    assert tags
    assert set(tags) == {"financial"}


def test_a_small_system_needs_no_location_and_no_practitioner_for_an_appointment() -> None:
    (scheduled,) = (known for known in shipped() if known.name == "appointment.scheduled")
    assert {"location_id", "practitioner_id"}.isdisjoint(scheduled.schema["required"])


def test_what_the_gateway_says_about_itself_is_the_same_in_a_thin_body() -> None:
    assert {tuple(known.thin) for known in operational()} == {("",)}
