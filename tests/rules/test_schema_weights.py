"""What each keyword of a schema adds to its cost, in nanoseconds as measured, and the limits that it may just reach."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules.schema_cost import MOST, Cost, SchemaRefused, at, cost_of

OBJECT = {"type": "object"}  # 40 for being applied, 10 for a keyword
PLAIN = st.recursive(st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abcd"), inner))


def required(count: int) -> dict[str, Any]:
    """A schema of 50 + 12 * count nanoseconds a value."""
    return {"required": [f"n{number}" for number in range(count)]}


@pytest.mark.parametrize(
    ("schema", "cost"),
    [
        ({}, (40, 1, 0)),
        (OBJECT, (50, 1, 0)),
        ({"required": ["a", "b"]}, (74, 1, 0)),
        ({"dependentRequired": {"a": ["b", "c"], "d": []}}, (98, 1, 0)),
        ({"enum": ["a", "b", "c"]}, (60, 2, 0)),
        ({"enum": ["a", 1]}, (810, 2, 0)),
        ({"const": 1}, (310, 2, 0)),
        ({"const": {"a": "x", "b": [1]}}, (1_310, 2, 0)),
        ({"minimum": 1}, (150, 16, 1_200)),
        ({"maximum": 1.0}, (150, 16, 1_200)),
        ({"exclusiveMinimum": 0.5}, (950, 41, 1_200)),
        ({"multipleOf": 5}, (550, 21, 1_200)),
        ({"multipleOf": 0.1}, (3_050, 101, 25_000)),
        ({"format": "date"}, (75, 3, 0)),
        ({"format": "email"}, (150, 3, 0)),
        ({"format": "idn-email"}, (250, 11, 0)),
        ({"format": "idn-hostname"}, (1_050, 11, 0)),
        ({"format": "regex"}, (100, 151, 0)),
        ({"maxLength": 5}, (50, 1.2, 0)),
        ({"pattern": "^a"}, (100, 11, 0)),
        ({"patternProperties": {"^a": {}}}, (62, 11, 0)),
        ({"uniqueItems": True}, (500, 2, 0)),
        ({"uniqueItems": True, "items": OBJECT}, (550, 2, 0)),
        ({"uniqueItems": True, "items": {"uniqueItems": True, "items": {}}}, (1_040, 3, 0)),
        ({"allOf": [{"uniqueItems": True}] * 2, "items": {}}, (1_040, 3, 0)),
        ({"allOf": [OBJECT, OBJECT]}, (150, 1, 0)),
        ({"unevaluatedProperties": False, "allOf": [OBJECT]}, (210, 1, 0)),
        ({"unevaluatedItems": False, "allOf": [OBJECT]}, (210, 1, 0)),
        ({"allOf": [{"minimum": 1}] * 2}, (350, 31, 2_400)),
    ],
    ids=json.dumps,
)
def test_a_keyword_costs_what_was_measured(schema: dict[str, Any], cost: tuple[float, float, float]) -> None:
    assert cost_of(schema) == Cost(*cost)


def test_for_any_data_of_a_size_the_densest_is_counted() -> None:
    """One value in two bytes, and one number with a long exponent in five; a comma follows the last, too."""
    assert Cost(10, 2, 5).of(b"[1]") == 4 * (5 + 2 + 1)


@given(PLAIN)
def test_values_are_counted_exactly_where_no_text_looks_like_one(data: Any) -> None:
    def count(value: Any) -> int:
        inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
        return 1 + sum(map(count, inner))

    assert Cost(MOST, 0, 0).of(json.dumps(data, separators=(",", ":")).encode()) == count(data) * MOST


def test_numbers_with_a_long_exponent_are_counted_and_others_are_not() -> None:
    assert Cost(0, 0, MOST).of(b"[1e10,2E+10,3e-100,4e1,5,1.5]") == 3 * MOST


def test_a_schema_passes_that_judges_a_thousand_values_in_time_and_no_slower_one() -> None:
    slowest = required(8_325) | dict.fromkeys("abcde")
    assert cost_of(slowest).most_values == 1_000
    with pytest.raises(SchemaRefused):
        cost_of(slowest | {"f": None})


def test_a_schema_passes_that_judges_four_kilobytes_in_time_and_no_slower_one() -> None:
    slowest: list[object] = [{"pattern": "a{813}"}, *[{"const": "a"}] * 23]
    assert cost_of({"allOf": slowest}).most_bytes == 4_096
    with pytest.raises(SchemaRefused) as refused:
        cost_of({"allOf": [*slowest, {"const": "a"}]})
    assert refused.value.pointer == "/allOf/0"


def test_five_thousand_subschemas_are_looked_at_and_no_more() -> None:
    cost_of({"properties": {f"p{number}": {} for number in range(4_999)}})
    with pytest.raises(SchemaRefused):
        cost_of({"properties": {f"p{number}": {} for number in range(5_000)}})


def test_what_is_named_as_too_much_is_what_costs_most_as_often_as_it_applies() -> None:
    thrice = {"unevaluatedProperties": False, "allOf": [required(2_500)]}
    with pytest.raises(SchemaRefused) as refused:
        cost_of({"allOf": [thrice, required(5_000)]})
    assert refused.value.pointer == "/allOf/0/allOf/0"


@pytest.mark.parametrize("reference", ["#name", "x/items", "other.json#/items", "#/nowhere"])
def test_a_reference_to_anything_but_a_place_within_is_refused(reference: str) -> None:
    with pytest.raises(SchemaRefused) as refused:
        cost_of({"items": {}, "not": {"$ref": reference}})
    assert refused.value.pointer == "/not/$ref"


@pytest.mark.parametrize("pointer", ["/2", "/-1", "/x", "/\u0661", "/0/0"])
def test_a_pointer_to_what_is_not_there_leads_nowhere(pointer: str) -> None:
    assert at(["a", "b"], "/1") == "b"
    with pytest.raises(LookupError):
        at(["a", "b"], pointer)
