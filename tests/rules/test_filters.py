"""Which events an endpoint wants: compared with a slow reference that tries every item of every list."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.filters import HIDDEN, Filter, encode, parse, read_data, shown
from webhook_gateway.rules.views import tree_of

NAMES = ["a", "b", "c"]
NUMBERS = ["0", "1", "1.0", "1.10", "1.1", "-1", "2", "1e400", "12345678901234567890123", "12345678901234567890123.5"]
TEXTS = ["", "a", "A", "ab", "ba", "1", "true", "ß", "SS"]


class Number(str):
    """A number as its digits."""


def write(value: Any) -> str:
    """JSON that keeps digits."""
    match value:
        case Number():
            return str(value)
        case dict():
            return f"{{{','.join(f'{json.dumps(name)}:{write(member)}' for name, member in value.items())}}}"
        case list():
            return f"[{','.join(map(write, value))}]"
        case _:
            return json.dumps(value)


numbers = st.sampled_from(NUMBERS).map(Number)
texts = st.sampled_from(TEXTS)
scalars = numbers | texts | st.booleans() | st.none()
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=10,
)
data = st.dictionaries(st.sampled_from(NAMES), values, max_size=3)


def operator(name: str, operand: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return operand.map(lambda given: {name: given})


comparison = st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), numbers)
conditions = (
    scalars
    | operator("prefix", texts)
    | operator("suffix", texts)
    | operator("equals-ignore-case", texts)
    | operator("exists", st.booleans())
    | operator("anything-but", scalars | st.lists(scalars, min_size=1, max_size=3))
    | operator("numeric", st.lists(comparison, min_size=1, max_size=2).map(lambda pairs: list(itertools.chain(*pairs))))
)
wanted = st.lists(conditions, min_size=1, max_size=3)


def members(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(NAMES), inner, min_size=1, max_size=2)


lowest = members(wanted)
lower = members(wanted | lowest)
either = st.lists(lower, min_size=1, max_size=2)
filters = st.builds(
    lambda plain, others: plain | ({"$or": others} if others else {}), members(wanted | lower), st.none() | either
)

ABSENT, EMPTY_LIST = object(), object()


def without_lists(value: Any) -> Iterator[Any]:
    """The value with one item in place of each list, in every way."""
    match value:
        case []:
            yield EMPTY_LIST
        case list():
            for item in value:
                yield from without_lists(item)
        case dict():
            for chosen in itertools.product(*map(without_lists, value.values())):
                yield dict(zip(value, chosen, strict=True))
        case _:
            yield value


def wants(given: dict[str, Any], value: Any) -> bool:
    if "$or" in given:
        rest = {name: wanted for name, wanted in given.items() if name != "$or"}
        return any(wants(one | {}, value) for one in given["$or"]) and wants(rest, value)
    for name, wanted in given.items():
        member = value.get(name, ABSENT) if isinstance(value, dict) else ABSENT
        holds = wants(wanted, member) if isinstance(wanted, dict) else any(holds_for(one, member) for one in wanted)
        if not holds:
            return False
    return True


def holds_for(condition: Any, value: Any) -> bool:
    if isinstance(condition, dict) and "exists" in condition:
        return condition["exists"] is (value is not ABSENT)
    if value is ABSENT or value is EMPTY_LIST or isinstance(value, dict):
        return False
    if not isinstance(condition, dict):
        return same(condition, value)
    ((name, operand),) = condition.items()
    text = isinstance(value, str) and not isinstance(value, Number)
    match name:
        case "prefix":
            return text and value[: len(operand)] == operand
        case "suffix":
            return text and value[len(value) - len(operand) :] == operand and len(value) >= len(operand)
        case "equals-ignore-case":
            return text and value.upper().lower() == operand.upper().lower()
        case "anything-but":
            return not any(same(one, value) for one in (operand if isinstance(operand, list) else [operand]))
        case _:
            pairs = zip(operand[::2], operand[1::2], strict=True)
            return isinstance(value, Number) and all(compare(value, sign, bound) for sign, bound in pairs)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Number) and isinstance(other, Number):
        return Fraction(one) == Fraction(other)
    return type(one) is type(other) and one == other


def compare(value: Number, sign: str, bound: Number) -> bool:
    apart = Fraction(value) - Fraction(bound)
    return {"=": apart == 0, "<": apart < 0, "<=": apart <= 0, ">": apart > 0, ">=": apart >= 0}[sign]


def body(value: Any) -> bytes:
    return f'{{"id":"evt_1","type":"a.b","data":{write(value)},"subject":"x"}}'.encode()


def made(text: str) -> Filter:
    found = parse(text.encode())
    assert isinstance(found, Filter), found
    return found


def matches(text: str, value: str) -> bool:
    return made(text).matches(read_data(f'{{"data":{value}}}'.encode()))


@given(filters, data)
def test_a_filter_matches_as_the_reference_says(given: dict[str, Any], value: dict[str, Any]) -> None:
    expected = any(wants(given, one) for one in without_lists(value))
    assert made(write(given)).matches(read_data(body(value))) is expected


@given(filters, data)
def test_a_filter_that_was_stored_matches_the_same(given: dict[str, Any], value: dict[str, Any]) -> None:
    first = made(write(given))
    again = parse(encode(first.given))
    assert isinstance(again, Filter)
    assert encode(again.given) == encode(first.given)
    assert again.matches(read_data(body(value))) is first.matches(read_data(body(value)))


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ('{"a": ["x"]}', '{"a": "x"}'),
        ('{"a": ["x", 1]}', '{"a": 1.0}'),
        ('{"a": [1.1]}', '{"a": 1.10}'),
        ('{"a": [12345678901234567890123]}', '{"a": 12345678901234567890123.0}'),
        ('{"a": [null]}', '{"a": null}'),
        ('{"a": [false]}', '{"a": false}'),
        ('{"a": [{"prefix": "p_"}]}', '{"a": "p_17"}'),
        ('{"a": [{"suffix": "17"}]}', '{"a": "p_17"}'),
        ('{"a": [{"equals-ignore-case": "STRASSE"}]}', '{"a": "straße"}'),
        ('{"a": [{"anything-but": "x"}]}', '{"a": null}'),
        ('{"a": [{"anything-but": [1, "x"]}]}', '{"a": true}'),
        ('{"a": [{"anything-but": ["x"]}]}', '{"a": ["x", "y"]}'),
        ('{"a": [{"numeric": [">=", 100, "<", 500]}]}', '{"a": 100}'),
        ('{"a": [{"numeric": ["=", 1e400]}]}', '{"a": 1e400}'),
        ('{"a": [{"exists": false}]}', "{}"),
        ('{"a": [{"exists": true}]}', '{"a": null}'),
        ('{"a": [{"exists": true}]}', '{"a": []}'),
        ('{"a": [{"exists": true}]}', '{"a": {}}'),
        ('{"a": {"b": [{"exists": false}]}}', '{"a": "x"}'),
        ('{"a": {"b": [{"exists": false}]}}', '{"a": []}'),
        ('{"a": {"b": [{"exists": false}]}}', '{"a": [{"b": 1}, {}]}'),
        ('{"a": ["x"]}', '{"a": [["y"], ["x"]]}'),
        ('{"a": {"b": ["x"], "c": ["y"]}}', '{"a": [{"b": "x", "c": "z"}, {"b": "x", "c": "y"}]}'),
        ('{"$or": [{"a": ["x"]}, {"b": ["y"]}], "c": ["z"]}', '{"b": "y", "c": "z"}'),
        ('{"a": {"$or": [{"b": ["x"]}, {"c": ["y"]}]}}', '{"a": {"c": "y"}}'),
        ('{"a/b~": {"c": ["x"]}}', '{"a/b~": {"c": "x"}}'),
    ],
)
def test_what_matches(given: str, value: str) -> None:
    assert matches(given, value)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ('{"a": ["x"]}', '{"a": "X"}'),
        ('{"a": ["x"]}', "{}"),
        ('{"a": [1]}', '{"a": true}'),
        ('{"a": [0]}', '{"a": false}'),
        ('{"a": [true]}', '{"a": 1}'),
        ('{"a": ["1"]}', '{"a": 1}'),
        ('{"a": [1]}', '{"a": "1"}'),
        ('{"a": [0.1]}', '{"a": 0.1000000000000000055511151231257827}'),
        ('{"a": [12345678901234567890123]}', '{"a": 12345678901234567890124}'),
        ('{"a": [null]}', "{}"),
        ('{"a": [{"prefix": "1"}]}', '{"a": 1}'),
        ('{"a": [{"equals-ignore-case": "x"}]}', '{"a": "y"}'),
        ('{"a": [{"equals-ignore-case": "1"}]}', '{"a": 1}'),
        ('{"a": [{"prefix": ""}]}', '{"a": {}}'),
        ('{"a": [{"anything-but": "x"}]}', "{}"),
        ('{"a": [{"anything-but": "x"}]}', '{"a": {}}'),
        ('{"a": [{"anything-but": "x"}]}', '{"a": []}'),
        ('{"a": [{"numeric": [">=", 100, "<", 500]}]}', '{"a": 500}'),
        ('{"a": [{"numeric": [">", 0]}]}', '{"a": "1"}'),
        ('{"a": [{"numeric": [">=", 0]}]}', '{"a": true}'),
        ('{"a": [{"exists": false}]}', '{"a": null}'),
        ('{"a": {"b": ["x"], "c": ["y"]}}', '{"a": [{"b": "x", "c": "z"}, {"b": "z", "c": "y"}]}'),
        ('{"$or": [{"a": ["x"]}, {"b": ["y"]}], "c": ["z"]}', '{"a": "x", "b": "y"}'),
        ('{"a": {"b": ["x"]}}', '{"a": "x"}'),
    ],
)
def test_what_does_not_match(given: str, value: str) -> None:
    assert not matches(given, value)


def test_a_number_that_no_computer_can_hold_is_there_and_is_like_no_other() -> None:
    huge = '{"a": 1e99999999999999999999}'
    assert matches('{"a": [{"exists": true}]}', huge)
    assert matches('{"a": [{"anything-but": 1}]}', huge)
    assert not matches('{"a": [1, {"numeric": [">", 0]}, {"prefix": "1"}]}', huge)


@pytest.mark.parametrize(
    ("given", "rule", "pointer"),
    [
        ("[]", "type", ""),
        ("{}", "empty", ""),
        ('{"a": {}}', "empty", "/a"),
        ('{"a": []}', "type", "/a"),
        ('{"a": "x"}', "type", "/a"),
        ('{"a/b": {"c~": 1}}', "type", "/a~1b/c~0"),
        ('{"a": ["x", ["y"]]}', "operand", "/a/1"),
        ('{"a": [{}]}', "operator", "/a/0"),
        ('{"a": [{"prefix": "x", "suffix": "y"}]}', "operator", "/a/0"),
        ('{"a": [{"exists": true, "suffix": "y"}]}', "operator", "/a/0"),
        ('{"a": ["x", {"wildcard": "*"}]}', "operator", "/a/1"),
        ('{"a": [{"prefix": 1}]}', "operand", "/a/0/prefix"),
        ('{"a": [{"suffix": null}]}', "operand", "/a/0/suffix"),
        ('{"a": [{"equals-ignore-case": ["x"]}]}', "operand", "/a/0/equals-ignore-case"),
        ('{"a": [{"exists": "yes"}]}', "operand", "/a/0/exists"),
        ('{"a": [{"exists": 1}]}', "operand", "/a/0/exists"),
        ('{"a": [{"anything-but": []}]}', "operand", "/a/0/anything-but"),
        ('{"a": [{"anything-but": {"prefix": "x"}}]}', "operand", "/a/0/anything-but"),
        ('{"a": [{"anything-but": [["x"]]}]}', "operand", "/a/0/anything-but"),
        ('{"a": [{"numeric": 1}]}', "operand", "/a/0/numeric"),
        ('{"a": [{"numeric": []}]}', "operand", "/a/0/numeric"),
        ('{"a": [{"numeric": [">"]}]}', "operand", "/a/0/numeric"),
        ('{"a": [{"numeric": [">", 1, "<"]}]}', "operand", "/a/0/numeric"),
        ('{"a": [{"numeric": [">", 1, "<", 2, "<", 3]}]}', "operand", "/a/0/numeric"),
        ('{"a": [{"numeric": ["!=", 1]}]}', "operand", "/a/0/numeric"),
        ('{"a": [{"numeric": [[], 1]}]}', "operand", "/a/0/numeric"),
        ('{"a": [{"numeric": [">", "1"]}]}', "operand", "/a/0/numeric"),
        ('{"a": [{"numeric": [">", true]}]}', "operand", "/a/0/numeric"),
        ('{"a": [{"numeric": [">", 1e99999999999999999999]}]}', "operand", "/a/0/numeric"),
        ('{"a": [1e99999999999999999999]}', "operand", "/a/0"),
        ('{"$or": {}}', "type", "/$or"),
        ('{"$or": []}', "type", "/$or"),
        ('{"$or": [{"a": ["x"]}, 1]}', "type", "/$or"),
        ('{"$or": [{"a": ["x"]}, {}]}', "empty", "/$or/1"),
        ('{"b": {"$or": [{"a": 1}]}}', "type", "/b/$or/0/a"),
    ],
)
def test_a_fault_is_named_with_its_place(given: str, rule: str, pointer: str) -> None:
    fault = parse(given.encode())
    assert isinstance(fault, Fault)
    assert (fault.rule, fault.pointer) == (rule, pointer)
    assert fault.remedy.endswith(".")


def test_a_filter_is_five_objects_deep_at_most() -> None:
    assert isinstance(parse(b'{"a":{"b":{"c":{"$or":[{"e":["x"]}]}}}}'), Filter)
    fault = parse(b'{"a":{"b":{"c":{"$or":[{"e":{"f":["x"]}}]}}}}')
    assert isinstance(fault, Fault)
    assert (fault.rule, fault.pointer) == ("depth", "/a/b/c/$or/0/e")


def test_a_filter_has_fifty_conditions_at_most() -> None:
    assert isinstance(parse(json.dumps({"a": ["x"] * 25, "b": {"c": ["y"] * 25}}).encode()), Filter)
    fault = parse(json.dumps({"a": ["x"] * 25, "b": {"c": ["y"] * 26}}).encode())
    assert isinstance(fault, Fault)
    assert (fault.rule, fault.pointer) == ("conditions", "/b/c")


def test_a_filter_has_four_kilobytes_at_most() -> None:
    around = len(encode({"a": [""]}))
    assert isinstance(parse(json.dumps({"a": ["x" * (4_096 - around)]}).encode()), Filter)
    fault = parse(json.dumps({"a": ["x" * (4_097 - around)]}).encode())
    assert isinstance(fault, Fault)
    assert (fault.rule, fault.pointer) == ("size", "")


GIVEN = {
    "payer": ["p_17"],
    "items": {"code": ["E11"], "price": [1]},
    "labels": ["x"],
    "$or": [{"payer": ["p_18"]}, {"total": [2]}],
}


@pytest.mark.parametrize(
    ("pointers", "seen"),
    [
        ([""], ["payer", "items", "labels", "$or"]),
        ([], []),
        (["/payer"], ["payer"]),
        (["/payer", "/total"], ["payer", "$or"]),
        (["/items"], ["items"]),
        (["/items/*"], ["items"]),
        (["/items/*/code", "/items/*/price", "/payer/x"], ["items"]),
        (["/items/*/code", "/items/price"], ["items"]),
        (["/items/*/code"], []),
        (["/labels/*"], ["labels"]),
        (["/labels/*/x"], []),
    ],
)
def test_who_gets_some_members_sees_the_conditions_on_these(pointers: list[str], seen: list[str]) -> None:
    expected: dict[str, Any] = {name: GIVEN[name] for name in seen}
    assert shown(GIVEN, tree_of(pointers)) == expected | ({} if len(seen) == len(GIVEN) else {"$other": HIDDEN})
