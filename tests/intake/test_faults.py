"""Where data breaks a schema: the validator judges, and the places that are told are places that it judged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.intake.catalogue import shipped
from webhook_gateway.intake.faults import MOST_FAULTS, Patience
from webhook_gateway.intake.schemas import Schema
from webhook_gateway.rules.faults import Fault

SECRET_VALUE = "Jane-Doe-1961-04-17"
LAB_RESULT = next(known for known in shipped() if known.name == "lab_result.final")


def faults(schema: dict[str, Any], data: object) -> tuple[Fault, ...]:
    return Schema(schema).faults(data, Patience())


def told(schema: dict[str, Any], data: object) -> list[tuple[str | None, str]]:
    return [(fault.pointer, fault.rule) for fault in faults(schema, data)]


@pytest.mark.parametrize(
    ("schema", "item"),
    [
        (LAB_RESULT.schema["properties"]["observations"]["items"], {}),
        ({"required": [f"member_{n}" for n in range(20)]}, {}),
        ({"anyOf": [{"required": [f"member_{n}" for n in range(20)]}, {"type": "null"}]}, {}),
        ({"additionalProperties": {"type": "string"}}, {"a": 1, "b": 2}),
        ({"items": {"type": "string"}}, [1, 2, 3]),
    ],
)
def test_of_faults_without_end_only_the_first_are_made(schema: dict[str, Any], item: object) -> None:
    """Counted by what the search asks, not by the time it takes."""
    asked = 0
    whole = Schema({"items": schema})
    says = whole._faults._says

    def counted(judge: Any, value: Any) -> bool:
        nonlocal asked
        asked += 1
        return says(judge, value)

    whole._faults._says = counted  # type: ignore[method-assign]
    assert len(whole.faults([item] * 340_000, Patience())) == MOST_FAULTS
    assert asked < 20 * MOST_FAULTS


def test_the_one_fault_at_the_end_of_much_that_is_right_is_found() -> None:
    assert told({"items": {"type": "integer"}}, [*range(100_000), "x"]) == [("/100000", "type")]


def test_without_patience_the_nearest_place_is_told() -> None:
    schema = {"properties": {"a": {"properties": {"b": {"type": "string"}}}}}
    (fault,) = Schema(schema).faults({"a": {"b": 1}}, Patience(0.0))
    assert (fault.pointer, fault.rule) == ("", "schema")
    assert "would take too long" in fault.remedy


def test_depth_ends_the_search_and_not_the_process() -> None:
    data: object = "x"
    for _ in range(190):
        data = [data]
    (fault,) = faults({"type": "array", "items": {"$ref": "#"}}, data)
    assert fault.pointer is not None
    assert fault.pointer.startswith("/0/0/0")


@pytest.mark.parametrize(
    ("schema", "data", "expected"),
    [
        ({"properties": {"a": {"type": ["string", "null"]}}}, {"a": 1}, [("/a", "type")]),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"minimum": 3}}}, 1, [("", "minimum")]),
        ({"$id": "https://h.example/", "$ref": "#/$defs/%C3%A9", "$defs": {"é": {"minimum": 9}}}, 1, [("", "minimum")]),
        ({"allOf": [{"minLength": 3}, {"pattern": "^a"}]}, "b", [("", "minLength"), ("", "pattern")]),
        ({"oneOf": [{"minLength": 1}, {"maxLength": 3}]}, "ab", [("", "oneOf")]),
        ({"not": {"type": "string"}}, "ab", [("", "not")]),
        ({"if": {"type": "string"}, "then": {"minLength": 3}, "else": {"minimum": 3}}, "a", [("", "minLength")]),
        ({"if": {"type": "string"}, "then": {"minLength": 3}, "else": {"minimum": 3}}, 1, [("", "minimum")]),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1}, [("", "required")]),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, [("", "dependentRequired")]),
        ({"prefixItems": [{"type": "string"}], "items": {"minimum": 3}}, [1, 1], [("/0", "type"), ("/1", "minimum")]),
        ({"prefixItems": [True], "items": False}, [1, 2], [("/1", "false")]),
        ({"properties": {"a": True}, "additionalProperties": False}, {"a": 1, "b": 1}, [("", "additionalProperties")]),
        ({"patternProperties": {"^a": {"type": "string"}}, "additionalProperties": {"type": "integer"}},
         {"ab": 1, "c": "x"}, [("/*", "type"), ("/*", "type")]),
        ({"contains": {"type": "string"}}, [1], [("", "contains")]),
        ({"propertyNames": {"maxLength": 1}}, {"ab": 1}, [("", "propertyNames")]),
        ({"properties": {"a": True}, "unevaluatedProperties": False}, {"b": 1}, [("", "unevaluatedProperties")]),
        ({"properties": {"a": False}}, {"a": 1}, [("/a", "false")]),
        ({"properties": {"x/y": {"uniqueItems": True}}}, {"x/y": [1, 1]}, [("/x~1y", "uniqueItems")]),
    ],
)  # fmt: skip
def test_each_keyword_is_told_at_its_place(
    schema: dict[str, Any], data: object, expected: list[tuple[str, str]]
) -> None:
    assert told(schema, data) == expected


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ({"enum": ["final", 1, None]}, 'It must be one of "final", 1, null.'),
        ({"enum": [f"code_{n}" for n in range(30)]}, '"code_19", …'),
        ({"const": "final"}, 'It must be "final".'),
        ({"pattern": "^[A-Z]{3}$", "description": "a currency, as in EUR"}, "^[A-Z]{3}$ (a currency, as in EUR)"),
        ({"pattern": "^[A-Z]{3}$"}, "It must match ^[A-Z]{3}$."),
        ({"format": "date-time"}, "It must be a date-time."),
        ({"type": ["integer", "null"]}, "It must be of type integer or null."),
        ({"maxLength": 3}, "It must have at most 3 characters."),
    ],
)
def test_a_remedy_says_what_the_schema_wants_and_never_what_was_sent(schema: dict[str, Any], sentence: str) -> None:
    (fault,) = faults(schema, SECRET_VALUE)
    assert sentence in fault.remedy
    assert SECRET_VALUE not in fault.remedy


def test_a_name_that_the_schema_does_not_have_is_not_told() -> None:
    (fault,) = faults({"additionalProperties": {"additionalProperties": {"type": "string"}}}, {SECRET_VALUE: {"b": 1}})
    assert fault.pointer == "/*/*"


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=3)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=4),
    max_leaves=12,
)
SIMPLE = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "array", "object", "null"]),
        "enum": st.lists(SCALARS, min_size=1, max_size=3),
        "minimum": st.integers(-2, 2),
        "maxLength": st.integers(0, 2),
        "pattern": st.sampled_from(["^a", "b$", "^[ab]{2}$"]),
        "required": st.lists(st.sampled_from("abc"), unique=True, max_size=2),
        "uniqueItems": st.booleans(),
        "maxItems": st.integers(0, 2),
    },
)
NAMES = st.sampled_from(["a", "b", "c"])
SCHEMAS = st.recursive(
    SIMPLE | st.booleans(),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), inner, max_size=2),
            "additionalProperties": inner,
            "unevaluatedProperties": inner,
            "propertyNames": inner,
            "dependentSchemas": st.dictionaries(NAMES, inner, max_size=2),
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "items": inner,
            "contains": inner,
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "$ref": st.just("#/$defs/shared"),
        },
    ),
    max_leaves=6,
)


@given(SCHEMAS.filter(lambda schema: isinstance(schema, dict)), SIMPLE, DATA)
def test_whatever_is_not_valid_has_a_fault_at_a_place_that_is_there(
    schema: dict[str, Any], shared: dict[str, Any], data: object
) -> None:
    compiled = Schema({**schema, "$defs": {"shared": shared}})
    if compiled.is_valid(data):
        return
    found = compiled.faults(data, Patience())
    assert found
    for fault in found:
        assert fault.pointer is not None
        places = [data]
        for part in fault.pointer.split("/")[1:]:
            inner = [place for place in places if isinstance(place, dict | list)]
            places = [
                member
                for place in inner
                for name, member in (place.items() if isinstance(place, dict) else enumerate(place))
                if part in ("*", str(name))
            ]
        assert places, fault
