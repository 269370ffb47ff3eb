"""How much of an event somebody gets: what is in the set stays byte for byte, and nothing else gets through."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.intake.catalogue import EventType, shipped
from webhook_gateway.rules.views import (
    EVERYTHING,
    NOTHING,
    WHOLE,
    View,
    cut,
    cut_schema,
    faults_of,
    fits,
    intersect,
    pointers_of,
    tree_of,
    view_of,
)

NAMES = ["a", "b", "a/b", "m~n", "*", "-", "é", '"\\\n', ""]
SCALARS = ["4.10", "12345678901234567890123", "-0", "1e400", "null", "true", '"x"', '"\\u00e9\\/"', '""', '"~1 {["']
SUBJECT = ['"subject":"pat_1"']
Node = str | list[Any] | dict[str, Any]
"""A scalar as its text, a list, an object."""

nodes: st.SearchStrategy[Node] = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(NAMES), nodes, max_size=5)
tokens = st.sampled_from(NAMES)
pointer_lists = st.lists(st.lists(tokens, max_size=3).map(lambda names: "".join(f"/{escaped(n)}" for n in names)))
spaces = st.sampled_from(["", " ", "\n", "\t "])


def escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def render(node: Node, space: str) -> str:
    """JSON with space wherever JSON allows it, and names written in escapes."""
    match node:
        case str():
            return node
        case list():
            return f"[{space}" + f"{space},{space}".join(render(item, space) for item in node) + f"{space}]"
        case dict():
            members = (f"{json.dumps(name)}{space}:{space}{render(member, space)}" for name, member in node.items())
            return f"{{{space}" + f"{space},{space}".join(members) + f"{space}}}"


def reference(node: Node, way: tuple[str, ...], pointers: Sequence[tuple[str, ...]], space: str) -> str | None:
    """What is left of a node, as text: it asks every pointer at every node."""
    if any(way[: len(pointer)] == pointer for pointer in pointers):
        return render(node, space)
    match node:
        case str():
            return None
        case list():
            kept = [one for item in node if (one := reference(item, (*way, "every item"), pointers, space)) is not None]
            return f"[{','.join(kept)}]" if kept else None
        case dict():
            of = {name: reference(member, (*way, f"={name}"), pointers, space) for name, member in node.items()}
            left = [f"{json.dumps(name, ensure_ascii=False)}:{one}" for name, one in of.items() if one is not None]
            return f"{{{','.join(left)}}}" if left else None


def parsed(pointer: str) -> tuple[str, ...]:
    names = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
    return tuple("every item" if name == "*" else f"={name}" for name in names)


def body(data: str, subject: bool = True) -> bytes:
    members = ['"id":"evt_1"', '"type":"lab_result.final"', '"timestamp":"2026-11-24T09:30:00Z"', f'"data":{data}']
    return f"{{{','.join(members + SUBJECT * subject)}}}".encode()


@given(objects, pointer_lists, spaces, st.booleans())
def test_what_is_in_the_set_stays_byte_for_byte_and_nothing_else_gets_through(
    data: dict[str, Any], pointers: list[str], space: str, subject: bool
) -> None:
    left = reference(data, (), [parsed(pointer) for pointer in pointers], space)
    got = cut(body(render(data, space)), tree_of(pointers), subject)
    assert got == body(left or "{}", subject)


@pytest.mark.parametrize(
    ("pointers", "left"),
    [
        (["/list/*"], '{"list":[{"code": "x","n":4.10},{"n":1},null,[ 2 ]]}'),
        (["/list/*/code"], '{"list":[{"code":"x"}]}'),
        (["/list/*/*"], '{"list":[[2]]}'),
        (["/list/code", "/empty/*", "/none/*", "/gone"], "{}"),
        (["/empty", "/none"], '{"empty":[ ],"none":{ }}'),
    ],
)
def test_a_star_is_every_item_of_a_list(pointers: list[str], left: str) -> None:
    data = '{"list": [ {"code": "x","n":4.10}, {"n":1} ,null, [ 2 ]], "empty":[ ], "none":{ }}'
    assert cut(body(data), tree_of(pointers), True) == body(left)


@given(objects, pointer_lists, pointer_lists)
def test_an_intersection_holds_what_both_hold(data: dict[str, Any], one: list[str], other: list[str]) -> None:
    both = intersect(tree_of(one), tree_of(other))
    once = cut(body(render(data, "")), both, True)
    assert once == cut(cut(body(render(data, "")), tree_of(one), True), tree_of(other), True)
    assert both == intersect(both, tree_of(other)) == intersect(tree_of(one), both)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ([""], ["/a"], ["/a"]),
        (["/a"], [""], ["/a"]),
        (["/a"], ["/a/b", "/c"], ["/a/b"]),
        (["/a/b"], ["/a/c"], []),
        (["/a/*/b"], ["/a"], ["/a/*/b"]),
        (["/a/*"], ["/a/b"], []),
        ([], [""], []),
    ],
)
def test_sets_meet_by_prefix(one: list[str], other: list[str], both: list[str]) -> None:
    assert intersect(tree_of(one), tree_of(other)) == tree_of(both)


@pytest.mark.parametrize("pointers", [["/a", "/a/b"], ["/a/b", "/a"], ["/a/b/c", "/a"], ["/a", "/a/b/c"]])
def test_a_pointer_holds_what_is_below_it_whatever_else_is_listed(pointers: list[str]) -> None:
    assert tree_of(pointers) == {"a": EVERYTHING}


@given(pointer_lists)
def test_a_set_is_told_by_pointers_that_make_the_same_set(pointers: list[str]) -> None:
    assert tree_of(pointers_of(tree_of(pointers))) == tree_of(pointers)


def test_the_pointers_that_tell_a_set_are_the_shortest() -> None:
    assert pointers_of(tree_of(["/a/b", "/a", "/m~0n/a~1b"])) == ["/a", "/m~0n/a~1b"]
    assert (pointers_of(EVERYTHING), pointers_of(NOTHING)) == ([""], [])


FULL: dict[str, Any] = {"level": "full", "subject": True}
THIN: dict[str, Any] = {"level": "thin", "subject": True}


def fields(*pointers: str, subject: bool = False) -> dict[str, Any]:
    return {"level": "fields", "pointers": list(pointers), "subject": subject}


@pytest.mark.parametrize(
    ("contents", "view"),
    [
        ([], WHOLE),
        ([FULL, None], View(EVERYTHING, is_thin=False, subject=True)),
        ([FULL, {**FULL, "subject": False}], View(EVERYTHING, is_thin=False, subject=False)),
        ([FULL, THIN], View(EVERYTHING, is_thin=True, subject=True)),
        ([fields("/a", "/b", subject=True), fields("/a/c")], View({"a": {"c": EVERYTHING}}, subject=False)),
        ([fields("/a", subject=True), FULL], View({"a": EVERYTHING}, subject=True)),
        ([fields(), FULL], View(NOTHING, subject=False)),
        ([{**THIN, "subject": False}, fields("/a")], View({"a": EVERYTHING}, is_thin=True, subject=False)),
    ],
)
def test_a_view_is_what_each_content_leaves(contents: list[dict[str, Any] | None], view: View) -> None:
    assert view_of(*contents) == view


@pytest.mark.parametrize(
    ("one", "other", "is_within"),
    [
        (FULL, FULL, True),
        (THIN, FULL, True),
        (FULL, THIN, False),
        (THIN, THIN, True),
        (FULL, {**FULL, "subject": False}, False),
        ({**FULL, "subject": False}, FULL, True),
        (fields("/a/b"), fields("/a"), True),
        (fields("/a"), fields("/a/b", "/c"), False),
        (fields("/a"), FULL, True),
        (FULL, fields("/a"), False),
        (THIN, fields("/a", subject=True), False),
        (fields(), fields("/a"), True),
    ],
)
def test_a_view_is_within_another_where_that_has_all_of_it(
    one: dict[str, Any], other: dict[str, Any], is_within: bool
) -> None:
    assert view_of(one).is_within(view_of(other)) is is_within


def test_only_a_thin_view_is_bounded_by_what_the_type_says() -> None:
    thin = tree_of(["/id", "/contact/phone"])
    assert View(tree_of(["/contact"]), is_thin=True).of(thin) == tree_of(["/contact/phone"])
    assert View(tree_of(["/contact"])).of(thin) == tree_of(["/contact"])
    assert View(is_thin=True).of(thin) == thin


def test_everything_with_its_subject_is_the_very_body() -> None:
    whole = b' {"id": "evt_1", "data": {"a": 1}, "later": true} '
    assert cut(whole, tree_of([""]), True) is whole


def test_everything_without_its_subject_lacks_only_that() -> None:
    assert cut(body('{"a": 4.10}'), EVERYTHING, False) == body('{"a": 4.10}', subject=False)


def test_a_test_says_that_it_is_one_and_no_other_member_beside_data_gets_through() -> None:
    stored = b'{"id":"evt_1","type":"a.b","timestamp":"t","test":true,"data":{"a":1},"later":"pat_1"}'
    assert cut(stored, NOTHING, True) == b'{"id":"evt_1","type":"a.b","timestamp":"t","test":true,"data":{}}'


@pytest.mark.parametrize("data", ["[1]", "4.10", "null", '"x"', "true"])
def test_of_data_that_is_no_object_nothing_gets_through(data: str) -> None:
    assert cut(body(data), tree_of(["/a"]), True) == body("{}")


def test_pointers_have_no_faults() -> None:
    assert faults_of(["", "/a", "/a/*/b", "/a~1b/m~0n", "/-", "/é", "/a1", "/", "/" + "a" * 255]) == ()
    assert faults_of(["/a"] * 200) == ()


@pytest.mark.parametrize("pointer", ["a", "a/b", "/a~", "/a~2", "~1", "/0", "/a/17/b", "/" + "a" * 256, "/01"])
def test_a_pointer_at_fault_is_named_by_its_place(pointer: str) -> None:
    (fault,) = faults_of(["/a", pointer])
    assert (fault.rule, fault.pointer) == ("pointer", "/1")


def test_there_are_200_pointers_at_most() -> None:
    (fault,) = faults_of(["/a"] * 201)
    assert (fault.rule, fault.pointer) == ("too_many", "")


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "a/b": {"type": ["number", "null"]},
        "any": {},
        "open": {"type": "object"},
        "never": False,
        "contact": {"type": ["object", "null"], "properties": {"phone": True}, "additionalProperties": True},
        "labels": {"type": "object", "additionalProperties": {"properties": {"code": {}}}, "properties": {}},
        "coded": {"patternProperties": {"^x-": {"type": "object", "properties": {"code": {}}}}},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "pair": {"type": "array", "prefixItems": [{"type": "object", "properties": {"first": {}}}, {"type": "string"}]},
        "either": {"anyOf": [{"$ref": "#/$defs/item"}, {"type": "string"}], "oneOf": [{"properties": {"one": {}}}]},
        "whole": {"allOf": [{"$ref": "#/properties/contact"}, {"properties": {"fax": {}}}]},
        "second": {"$ref": "#/properties/either/anyOf/0"},
        "lost": {"$ref": "#/$defs/gone"},
    },
    "then": {"properties": {"late": {}}},
    "else": {"properties": {"other": {}}},
    "$defs": {"item": {"type": "object", "properties": {"code": {"type": "string"}, "part": {"$ref": "#/$defs/item"}}}},
}


@pytest.mark.parametrize(
    "pointer",
    [
        "", "/id", "/a~1b", "/contact", "/contact/phone", "/any", "/any/x/*/y", "/open/x", "/labels/x/code",
        "/coded/x-1/code", "/items", "/items/*", "/items/*/code", "/items/*/part/part/code", "/pair/*", "/pair/*/first",
        "/either/code", "/either/one", "/whole/phone", "/whole/fax", "/second/code", "/late", "/other", "/lost/x",
    ],
)  # fmt: skip
def test_a_pointer_fits_what_the_schema_names_or_leaves_open(pointer: str) -> None:
    assert fits(SCHEMA, pointer)


@pytest.mark.parametrize(
    "pointer",
    [
        "/ID", "/id/x", "/id/*", "/a~1b/x", "/contact/fax", "/contact/*", "/labels/x/display", "/items/code", "/never",
        "/items/*/x", "/items/*/*", "/pair/*/second", "/either/two", "/whole/x", "/*", "/second/x", "/coded/x-1/x",
    ],
)  # fmt: skip
def test_a_pointer_to_what_the_schema_does_not_name_fits_nothing(pointer: str) -> None:
    assert not fits(SCHEMA, pointer)


def test_a_schema_that_refers_to_itself_is_looked_at_once() -> None:
    circle = {"allOf": [{"$ref": "#"}], "properties": {"a": {"$ref": "#"}}}
    assert fits(circle, "/a/a/a")
    assert not fits(circle, "/a/b")


def places_in(schema: dict[str, Any], way: str = "") -> list[str]:
    """Every place that the schema names."""
    below = [(f"/{name}", each) for name, each in schema.get("properties", {}).items()]
    below += [("/*", schema["items"])] if "items" in schema else []
    return [way, *(found for token, each in below for found in places_in(each, way + token))]


@given(st.data())
@pytest.mark.parametrize("known", shipped(), ids=lambda known: known.name)
def test_what_is_cut_obeys_the_schema_that_is_cut_alike_and_what_is_whole_does_not(
    known: EventType, data: st.DataObject
) -> None:
    schema: Any = known.schema
    tree = tree_of(data.draw(st.lists(st.sampled_from(places_in(schema)), max_size=6)))
    left = json.loads(cut(body(json.dumps(known.example)), tree, False))["data"]
    judge = jsonschema_rs.validator_for(cut_schema(schema, tree), validate_formats=True)
    judge.validate(left)
    assert judge.is_valid(known.example) == (left == known.example)


def test_the_schema_of_what_is_cut_keeps_what_it_refers_to_and_requires_only_what_is_always_there() -> None:
    schema = {
        "$defs": {"code": {"type": "string"}},
        "type": "object",
        "properties": {
            "who": {
                "type": "object",
                "properties": {"code": {"$ref": "#/$defs/code"}, "name": {}},
                "required": ["name"],
            },
            "same": {"$ref": "#/properties/who"},
            "list": {"type": "array", "items": {"allOf": [{"properties": {"code": {"$ref": "#/$defs/code"}}}]}},
        },
        "required": ["who", "list", "same"],
    }
    left = cut_schema(schema, tree_of(["/who/code", "/same/name", "/list/*/code"]))
    assert left["required"] == [], "who may have no code, and an empty list is left out"
    judge = jsonschema_rs.validator_for(left)
    assert judge.is_valid({"who": {"code": "x"}, "same": {"name": 1}, "list": [{"code": "x"}]})
    for wrong in (
        {"who": {"code": 1}},
        {"who": {"name": 1}},
        {"list": [{"code": 1}]},
        {"list": [{"n": 1}]},
        {"new": 1},
    ):
        assert not judge.is_valid(wrong), wrong
    assert cut_schema(schema, tree_of(["/who", "/same"]))["required"] == ["who", "same"]
    assert cut_schema(schema, EVERYTHING) is schema
