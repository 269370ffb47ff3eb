"""Which events of its types an endpoint wants, by what is in ``data``; in the shape of EventBridge's event patterns.

Members are AND, a list is OR. Numbers are decimals, as exact as they were written; ``true`` is not 1, and text is no
number. A list in the data matches if one item does, and what is asked below a list must hold for one and the same item.
What is absent, as is what would be below an empty list, matches ``exists: false`` only; an object only ``exists``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from .faults import Fault
from .views import EVERY_ITEM, EVERYTHING, Tree, escape

DEEPEST, MOST_CONDITIONS, LARGEST = 5, 50, 4_096
"""Objects within each other, conditions, and bytes of a filter."""
OR, OTHER = "$or", "$other"
HIDDEN = "set by the hospital"

Test = Callable[[Any], bool]
_ABSENT: Any = object()
_YES, _NO = object(), object()
_encode = msgspec.json.Encoder(order="sorted", decimal_format="number").encode
_NUMERIC = 'Give one or two comparisons, as in [">=", 100, "<", 500].'
_COMPARE = {"=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class Filter(msgspec.Struct, frozen=True):
    """``given`` is what the hospital wrote, ``matches`` judges what `read_data` read."""

    given: Mapping[str, Any]
    matches: Test


def parse(text: bytes) -> Filter | Fault:
    """A filter from its JSON, ready to judge, or the first thing that is wrong with it, with a pointer into it."""
    given = _decode(text)
    try:
        if not isinstance(given, Mapping):
            raise _Refused("type", "Give an object: members of `data`, each with a list of conditions.", "")
        matches = _Compiler().members(given, "", 1)
        if len(encode(given)) > LARGEST:
            raise _Refused("size", f"Give a filter of at most {LARGEST:,} bytes.", "")
    except _Refused as refused:
        return refused.fault
    return Filter(given, matches)


def encode(given: Mapping[str, Any]) -> bytes:
    """A filter as JSON, the same for the same filter."""
    return _encode(given)


def read_data(body: bytes) -> Any:
    """The ``data`` of an event's body, for `Filter.matches`."""
    return _read(body).data


def shown(given: Mapping[str, Any], tree: Tree) -> dict[str, Any]:
    """A filter for somebody who gets no more of ``data`` than is in the tree: other conditions aren't told."""
    seen = {name: wanted for name, wanted in given.items() if _is_seen({name: wanted}, tree)}
    return seen if len(seen) == len(given) else {**seen, OTHER: HIDDEN}


def _is_seen(wanted: Any, tree: Tree) -> bool:
    if tree is EVERYTHING or not tree:
        return bool(tree)
    item = tree.get(EVERY_ITEM, {})
    if not isinstance(wanted, Mapping):
        return item is EVERYTHING
    return all(
        all(_is_seen(each, tree) for each in below)
        if name == OR
        else _is_seen(below, tree.get(name, {})) or _is_seen({name: below}, item)
        for name, below in wanted.items()
    )


class _Refused(ValueError):
    def __init__(self, rule: str, remedy: str, pointer: str) -> None:
        super().__init__(rule)
        self.fault = Fault(rule, remedy, pointer)


class _Compiler:
    def __init__(self) -> None:
        self._conditions = 0

    def members(self, given: Mapping[str, Any], pointer: str, depth: int) -> Test:
        if depth > DEEPEST:
            raise _Refused("depth", f"Nest at most {DEEPEST} objects.", pointer)
        if not given:
            raise _Refused("empty", "Name at least one member, or leave the filter out.", pointer)
        either = [self._either(each, f"{pointer}/{OR}", depth) for name, each in given.items() if name == OR]
        wanted = [
            (name, self._wanted(each, f"{pointer}/{escape(name)}", depth)) for name, each in given.items() if name != OR
        ]

        def matches(value: Any) -> bool:
            if type(value) is list and value:
                return any(map(matches, value))
            members = value if type(value) is dict else {}
            for name, test in wanted:
                if not test(members.get(name, _ABSENT)):
                    return False
            return all(test(members) for test in either)

        return matches

    def _either(self, wanted: object, pointer: str, depth: int) -> Test:
        if not isinstance(wanted, list) or not wanted or not all(isinstance(each, Mapping) for each in wanted):
            raise _Refused("type", "Give a list of objects, of which one has to match.", pointer)
        tests = [self.members(each, f"{pointer}/{at}", depth + 1) for at, each in enumerate(wanted)]
        return lambda members: any(test(members) for test in tests)

    def _wanted(self, wanted: object, pointer: str, depth: int) -> Test:
        if isinstance(wanted, Mapping):
            return self.members(wanted, pointer, depth + 1)
        if not isinstance(wanted, list) or not wanted:
            raise _Refused("type", "Give a list of conditions, or an object with members of what is there.", pointer)
        self._conditions += len(wanted)
        if self._conditions > MOST_CONDITIONS:
            raise _Refused("conditions", f"Give at most {MOST_CONDITIONS} conditions in all.", pointer)
        exact, exists, tests = set(), set(), []
        for at, condition in enumerate(wanted):
            place = f"{pointer}/{at}"
            if not isinstance(condition, Mapping):
                exact.add(_key(_literal(condition, place)))
            elif isinstance(operand := condition.get("exists"), bool) and len(condition) == 1:
                exists.add(operand)
            else:
                tests.append(_condition(condition, place))

        def matches(value: Any) -> bool:
            kind = type(value)
            if kind is list:
                return any(map(matches, value))
            if kind is dict or value is _ABSENT:
                return False
            if (value if kind is not bool else _key(value)) in exact:
                return True
            for test in tests:  # noqa: SIM110 -- it is called for every event
                if test(value):
                    return True
            return False

        return (lambda value: (value is not _ABSENT) in exists or matches(value)) if exists else matches


def _condition(condition: Mapping[str, Any], pointer: str) -> Test:
    """The test of a value that is there and is text, a number, true, false or null."""
    if len(condition) != 1:
        raise _Refused("operator", "Give one operator in each condition.", pointer)
    ((name, operand),) = condition.items()
    place = f"{pointer}/{escape(name)}"
    match name:
        case "prefix" | "suffix" | "equals-ignore-case":
            if not isinstance(operand, str):
                raise _Refused("operand", "Give a text.", place)
            return _TEXT[name](operand)
        case "anything-but":
            given = operand if isinstance(operand, list) else [operand]
            if not given:
                raise _Refused("operand", "Give at least one value.", place)
            refused = {_key(_literal(each, place)) for each in given}
            return lambda value: _key(value) not in refused
        case "numeric":
            return _numeric(operand, place)
        case "exists":
            raise _Refused("operand", "Give true or false.", place)
        case _:
            known = ", ".join([*_TEXT, "anything-but", "numeric", "exists"])
            raise _Refused("operator", f"Give a value, or one of the operators {known}.", pointer)


def _equals_ignore_case(text: str) -> Test:
    folded = text.casefold()
    return lambda value: type(value) is str and value.casefold() == folded


_TEXT: dict[str, Callable[[str], Test]] = {
    "prefix": lambda text: lambda value: type(value) is str and value.startswith(text),
    "suffix": lambda text: lambda value: type(value) is str and value.endswith(text),
    "equals-ignore-case": _equals_ignore_case,
}


def _numeric(operand: object, pointer: str) -> Test:
    names, bounds = (operand[::2], operand[1::2]) if isinstance(operand, list) else ([], [])
    if len(names) != len(bounds) or len(names) not in (1, 2) or not all(map(_is_number, bounds)):
        raise _Refused("operand", _NUMERIC, pointer)
    if not all(isinstance(name, str) and name in _COMPARE for name in names):
        raise _Refused("operand", _NUMERIC, pointer)
    tests = [(_COMPARE[name], bound) for name, bound in zip(names, bounds, strict=True)]
    return lambda value: _is_number(value) and all(compare(value, bound) for compare, bound in tests)


def _literal(value: object, pointer: str) -> Any:
    if not (value is None or isinstance(value, str | bool) or _is_number(value)):
        raise _Refused("operand", "Give texts, numbers, true, false or null.", pointer)
    return value


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is Decimal and value.is_finite())


def _key(value: Any) -> Any:
    """Equal for what is the same value in JSON: Python's True equals 1."""
    return (_YES if value else _NO) if type(value) is bool else value


def _decimal(text: str) -> Decimal | object:
    """The number as it was written. One whose exponent no computer can hold equals nothing and is in no range."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return object()


class _Body(msgspec.Struct):
    data: Any


_read = msgspec.json.Decoder(_Body, float_hook=_decimal).decode
_decode = msgspec.json.Decoder(float_hook=_decimal).decode
