"""What a schema may cost is known from the schema alone, and bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules.pattern_cost import FEW_COST, PLACE_COST, byte_cost
from webhook_gateway.rules.schema_cost import MOST, Cost, SchemaRefused, at, cost_of
from webhook_gateway.rules.views import escape

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='{}[],"\\é1e10', max_size=8),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner),
)
TREE = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "name": {"type": "string"}}}
EXPRESSION = {
    "$defs": {
        "expression": {
            "oneOf": [
                {"properties": {"all": {"items": {"$ref": "#/$defs/expression"}}}, "required": ["all"]},
                {"properties": {"any": {"items": {"$ref": "#/$defs/expression"}}}, "required": ["any"]},
                {"type": "string"},
            ]
        }
    },
    "$ref": "#/$defs/expression",
}
TWICE = {"allOf": [{"properties": {"c": {"$ref": "#"}}}, {"properties": {"c": {"$ref": "#"}}}]}


@pytest.mark.parametrize("schema", [TREE, EXPRESSION, {"items": {"$ref": "#"}}])
def test_a_schema_may_refer_to_itself_for_what_is_deeper_in_the_data(schema: dict[str, Any]) -> None:
    assert cost_of(schema).most_values > 100_000


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"$ref": "#"}, ""),
        ({"allOf": [{"not": {"$ref": "#/allOf/0"}}]}, None),
        (TWICE, ""),
        ({"uniqueItems": True, "items": {"$ref": "#"}}, ""),
        ({"items": {"enum": [{"a": n} for n in range(1_000)]}}, "/items"),
        ({"items": {"$dynamicRef": "#meta"}}, "/items/$dynamicRef"),
        ({"items": {"$id": "https://elsewhere.example.com/"}}, "/items/$id"),
        ({"items": {"$ref": "other.json"}}, "/items/$ref"),
        ({"properties": {f"p{n}": {"pattern": f"^a{n}$"} for n in range(101)}}, "/properties/p100"),
        ({"properties": {f"p{n}": {"items": {"type": "string"}} for n in range(6_000)}}, None),
    ],
)
def test_what_comes_to_too_much_is_refused_with_its_place(schema: dict[str, Any], pointer: str | None) -> None:
    with pytest.raises(SchemaRefused) as refused:
        cost_of(schema)
    assert pointer is None or refused.value.pointer == pointer
    at(schema, refused.value.pointer)


def test_a_format_that_takes_long_for_a_long_text_bounds_the_text() -> None:
    assert cost_of({"items": {"format": "date-time"}}).most_bytes > 10_000_000
    assert cost_of({"items": {"format": "regex"}}).most_bytes < 1_000_000


def test_a_doubling_through_the_data_counts_as_one_on_the_spot() -> None:
    """As deep as data may be, each level would double what applies."""
    one = {"properties": {"c": {"$ref": "#"}}}
    assert cost_of(one).most_values > 100_000
    with pytest.raises(SchemaRefused):
        cost_of({"allOf": [one, one]})


def test_what_applies_at_different_places_is_not_added_up() -> None:
    members = {f"p{n}": {"type": "string", "maxLength": 5} for n in range(500)}
    assert cost_of({"properties": members}).value < 2 * cost_of({"properties": {"p0": members["p0"]}}).value
    everywhere = {"additionalProperties": {"type": "string"}, "patternProperties": {"^p": {"maxLength": 5}}}
    assert cost_of(everywhere).value > cost_of({"properties": members}).value


@given(JSON)
def test_no_data_has_more_values_than_are_counted(data: Any) -> None:
    def count(value: Any) -> int:
        inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
        return 1 + sum(map(count, inner))

    for separators in ((",", ":"), (" , ", " : ")):
        raw = json.dumps(data, separators=separators).encode()
        assert Cost(MOST, 0, 0).of(raw) >= count(data) * MOST
        assert Cost(1, 0, 0).of(raw) >= count(data)
    assert Cost(0, MOST, 0).of(raw) == len(raw) * MOST


@given(st.text())
def test_any_text_has_a_cost_as_a_pattern(pattern: str) -> None:
    assert byte_cost(pattern) >= FEW_COST


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        (r"^[A-Z]{3}$", 0),
        (r"^-?\d+(\.\d{1,4})?$", 0),
        (r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$", 0),
        (r"^(BE|NL)[0-9]{10}$", 0),
        (r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$", 0),
        (r"a[ab]{50}c", 52),
        (r"^a|b{50}", 51),
        (r"^(?:a?){40}a{40}$", 41),
        (r"^[a-z]+[ab]{30}$", 31),
        (r"((a{10}){10}){10}", 1_000),
        (r"[0-9a-f\]]{8}-\p{L}{4}\u{1F600}\x20", 15),
    ],
)
def test_a_pattern_costs_as_much_as_it_has_places_that_may_be_open_at_once(pattern: str, places: int) -> None:
    assert byte_cost(pattern) == (PLACE_COST * places or FEW_COST)


@given(st.lists(st.text(), max_size=4))
def test_a_pointer_leads_where_its_names_say(names: list[str]) -> None:
    root: Any = "end"
    for name in reversed(names):
        root = {name: root}
    assert at(root, "".join(f"/{escape(name)}" for name in names)) == "end"
