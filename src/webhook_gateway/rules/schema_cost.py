"""What it may cost to judge data by a JSON Schema (2020-12), worked out from the schema alone.

A validator that has begun can't be stopped, so what a schema may ask of it is bounded beforehand: its references are
followed, and for every place in the data all that it applies there is added up. Two references side by side, nested
27 times, are 134 million judgements of one value; here that ends after a thousand. Costs are nanoseconds, as measured
on one core of 2024, rounded up.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from .pattern_cost import byte_cost
from .views import escape

MOST = 100_000_000
"""For one event: 100 ms."""
LEAST_VALUES, LEAST_BYTES = 1_000, 4_096
"""A schema that could not judge so many values, or so much text, for `MOST` is refused."""
MOST_PATTERNS = 100
"""Different ones: each keeps a cache of half a megabyte."""
MOST_STEPS = 5_000
"""Subschemas to look at, each as often as it applies."""

_APPLIED, _KEYWORD, _NAME = 40.0, 10.0, 12.0
_BOUND, _DECIMAL_BOUND = (100.0, 15.0, 1_200.0), (900.0, 40.0, 1_200.0)
_MULTIPLE, _DECIMAL_MULTIPLE = (500.0, 20.0, 1_200.0), (3_000.0, 100.0, 25_000.0)
"""By value, by byte (of numbers with hundreds of digits), and by number with a long exponent."""
_HASHED, _STRUCTURE, _TEXT, _PATTERN = 500.0, 250.0, 10.0, 50.0
_FORMAT = (25.0, 2.0)
_FORMATS = {"email": (100.0, 2.0), "idn-email": (200.0, 10.0), "idn-hostname": (1_000.0, 10.0), "regex": (50.0, 150.0)}
_AGAIN = 3
"""An unevaluated* asks again what the subschemas beside it say."""

_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("not", "if", "then", "else")
_ELSEWHERE = ("$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$anchor", "$recursiveAnchor")
_JOINING = frozenset({"$id", "$ref", "dependentSchemas", *_LISTS, *_SINGLE, *_ELSEWHERE})
_WITH_EXPONENT = re.compile(rb"[0-9][eE][+-]?[0-9]{2}")


class SchemaRefused(ValueError):
    """``pointer`` is the place in the schema (a JSON Pointer, RFC 6901), the message what to do."""

    def __init__(self, pointer: str, remedy: str) -> None:
        super().__init__(remedy)
        self.pointer = pointer


@dataclass(frozen=True, slots=True)
class Cost:
    """Nanoseconds for each value of the data, each byte of it, and each number in it that has a long exponent."""

    value: float
    byte: float
    exponent: float
    densest: float = field(init=False)
    """For each byte of JSON that has as many values and exponents as it can."""

    def __post_init__(self) -> None:
        # The shortest value takes a byte and a comma, the shortest number with a long exponent four and one.
        object.__setattr__(self, "densest", self.value / 2 + self.byte + self.exponent / 5)

    def of(self, data: bytes) -> float:
        """What judging this JSON costs at most; it is looked into only where its length alone says too much."""
        size = len(data)
        if (most := (size + 1) * self.densest) <= MOST:
            return most
        opened = data.count(b"{") + data.count(b"[") - data.count(b"{}") - data.count(b"[]")
        values = min(size, data.count(b",") + opened + 1)
        exponents = len(_WITH_EXPONENT.findall(data)) if self.exponent else 0
        return values * self.value + size * self.byte + exponents * self.exponent

    @property
    def most_values(self) -> int:
        return int(MOST / self.value)

    @property
    def most_bytes(self) -> int:
        return int(MOST / self.byte)


def cost_of(schema: Mapping[str, Any]) -> Cost:
    """What the schema may cost, for any data. Schemas that are none have a cost, too: others say that they are none.

    Raises:
        SchemaRefused: it costs too much for any data worth sending, or refers to anything but a place within itself.
    """
    return _Survey(schema).cost()


@dataclass(frozen=True)
class _Place:
    """What applies at one place of the data: subschemas by their pointer, and within how many ``uniqueItems`` it is."""

    applied: tuple[tuple[str, int], ...]
    hashed: int = 0


class _Survey:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._prefix = str(root.get("$id", "")).rstrip("#")
        self._known: dict[str, Mapping[str, Any]] = {}
        self._patterns: set[str] = set()
        self._steps = 0
        self._value = self._byte = self._exponent = 0.0

    def cost(self) -> Cost:
        first = _Place(self._in_place({"": 1}))
        seen, waiting = {first}, deque([first])
        while waiting:
            place = waiting.popleft()
            self._weigh(place)
            for below in self._below(place):
                if below not in seen:
                    seen.add(below)
                    waiting.append(below)
        return Cost(self._value, self._byte, self._exponent)

    def _in_place(self, given: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
        """All that applies to a value if these do: what they refer to, and what they join."""
        found: Counter[str] = Counter()
        waiting = list(given.items())
        while waiting:
            pointer, times = waiting.pop()
            found[pointer] += times
            self._steps += 1
            if self._steps > MOST_STEPS or found[pointer] > MOST / LEAST_VALUES / _APPLIED:
                raise SchemaRefused(pointer, "Use fewer references here: followed, they come to too much.")
            schema = self._at(pointer)
            if not schema.keys() & _JOINING:
                continue
            again = _AGAIN if "unevaluatedProperties" in schema or "unevaluatedItems" in schema else 1
            waiting += ((joined, times * again) for joined in self._joined(pointer, schema))
        return tuple(sorted(found.items()))

    def _joined(self, pointer: str, schema: Mapping[str, Any]) -> Iterator[str]:
        for keyword in _ELSEWHERE:
            if keyword in schema:
                raise SchemaRefused(f"{pointer}/{keyword}", "Use $ref with a pointer instead, as in #/$defs/name.")
        if pointer and "$id" in schema:
            raise SchemaRefused(f"{pointer}/$id", "Remove it: only the schema as a whole may have an $id.")
        if "$ref" in schema:
            yield self._referred(pointer, schema["$ref"])
        for keyword in _LISTS:
            yield from (f"{pointer}/{keyword}/{index}" for index in range(len(_list(schema, keyword))))
        yield from (f"{pointer}/{keyword}" for keyword in _SINGLE if keyword in schema)
        yield from (f"{pointer}/dependentSchemas/{escape(name)}" for name in _dict(schema, "dependentSchemas"))

    def _referred(self, pointer: str, reference: object) -> str:
        fragment = str(reference)
        if self._prefix:
            fragment = fragment.removeprefix(self._prefix)
        target = unquote(fragment[1:])
        if not fragment.startswith("#") or (target and not target.startswith("/")):
            raise SchemaRefused(f"{pointer}/$ref", "Refer to a place within the schema, as in #/$defs/name.")
        try:
            self._at(target)
        except LookupError:
            raise SchemaRefused(f"{pointer}/$ref", "Refer to a place that is there.") from None
        return target

    def _at(self, pointer: str) -> Mapping[str, Any]:
        if pointer not in self._known:
            found = at(self._root, pointer)
            schema = self._known[pointer] = found if isinstance(found, dict) else {}
            self._patterns |= {str(schema["pattern"])} if "pattern" in schema else set()
            self._patterns |= _dict(schema, "patternProperties").keys()
            if len(self._patterns) > MOST_PATTERNS:
                raise SchemaRefused(pointer, f"Use at most {MOST_PATTERNS} different patterns.")
        return self._known[pointer]

    def _weigh(self, place: _Place) -> None:
        value, byte, exponent = place.hashed * _HASHED, 1.0 + place.hashed, 0.0
        for pointer, times in place.applied:
            mine = _weight(self._at(pointer))
            value, byte, exponent = (a + times * b for a, b in zip((value, byte, exponent), mine, strict=True))
        self._value = max(self._value, value)
        self._byte = max(self._byte, byte)
        self._exponent = max(self._exponent, exponent)
        if value > MOST / LEAST_VALUES:
            raise SchemaRefused(
                self._heaviest(place), "Ask for less here: all that applies to one value comes to too much."
            )
        if byte > MOST / LEAST_BYTES:
            raise SchemaRefused(self._heaviest(place), "Use a simpler pattern: begin it with ^, and repeat less often.")

    def _heaviest(self, place: _Place) -> str:
        return max(place.applied, key=lambda one: one[1] * sum(_weight(self._at(one[0]))), default=("", 0))[0]

    def _below(self, place: _Place) -> Iterator[_Place]:
        """What applies one level deeper in the data: by name or index where they are listed, and to all others."""
        named: dict[str, Counter[str]] = {}
        rest: list[tuple[set[str], str, int]] = []
        everywhere: Counter[str] = Counter()
        hashed = place.hashed
        for pointer, times in place.applied:
            schema = self._at(pointer)
            hashed += times * (schema.get("uniqueItems") is True)
            listed = {escape(name): f"{pointer}/properties/{escape(name)}" for name in _dict(schema, "properties")}
            listed |= {str(n): f"{pointer}/prefixItems/{n}" for n in range(len(_list(schema, "prefixItems")))}
            for name, below in listed.items():
                named.setdefault(name, Counter())[below] += times
            rest += (
                (set(listed), f"{pointer}/{keyword}", times)
                for keyword in ("additionalProperties", "items")
                if isinstance(schema.get(keyword), dict)
            )
            for keyword in ("contains", "propertyNames", "unevaluatedProperties", "unevaluatedItems"):
                if isinstance(schema.get(keyword), dict):
                    everywhere[f"{pointer}/{keyword}"] += times
            for pattern in _dict(schema, "patternProperties"):
                everywhere[f"{pointer}/patternProperties/{escape(pattern)}"] += times
        if not named and not rest and not everywhere and hashed == place.hashed:
            return
        for name, counted in [*named.items(), ("/", Counter[str]())]:  # "/" is no name here: all others
            applied = everywhere + counted
            for listed_here, below, times in rest:
                if name not in listed_here:
                    applied[below] += times
            yield _Place(self._in_place(applied), hashed)


def _weight(schema: Mapping[str, Any]) -> tuple[float, float, float]:
    """Of one subschema, applied once, without those within it: by value, by byte and by exponent."""
    value, byte, exponent = _APPLIED, 0.0, 0.0
    for keyword, argument in schema.items():
        value += _KEYWORD
        match keyword:
            case "required":
                value += _NAME * len(_list(schema, keyword))
            case "dependentRequired":
                value += _NAME * sum(1 + len(_list(argument, name)) for name in _dict(schema, keyword))
            case "enum" | "const":
                byte += 1
                value += _TEXT + _STRUCTURE * _structures(argument)
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf":
                whole, decimal = (_MULTIPLE, _DECIMAL_MULTIPLE) if keyword == "multipleOf" else (_BOUND, _DECIMAL_BOUND)
                more = whole if _is_whole(argument) else decimal
                value, byte, exponent = value + more[0], byte + more[1], exponent + more[2]
            case "format":
                for_value, for_byte = _FORMATS.get(str(argument), _FORMAT)
                value, byte = value + for_value, byte + for_byte
            case "minLength" | "maxLength":
                byte += 0.2
            case "pattern":
                value += _PATTERN
                byte += byte_cost(str(argument))
            case "patternProperties":
                value += _NAME * len(_dict(schema, keyword))
                byte += sum(byte_cost(pattern) for pattern in _dict(schema, keyword))
            case _:
                pass
    return value, byte, exponent


def _structures(value: object) -> int:
    """How many comparisons one with it may take; next to none with text alone, however much of it."""
    if isinstance(value, list):
        return 0 if all(isinstance(item, str) for item in value) else sum(1 + _structures(item) for item in value)
    if isinstance(value, dict):
        return 1 + sum(1 + _structures(item) for item in value.values())
    return 0 if isinstance(value, str) else 1


def at(root: Any, pointer: str) -> Any:
    """What a JSON Pointer (RFC 6901) points at.

    Raises:
        LookupError: nothing is there.
    """
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(root, list):
            if not (name.isascii() and name.isdecimal()):
                raise LookupError(pointer)
            root = root[int(name)]
        elif isinstance(root, dict):
            root = root[name]
        else:
            raise LookupError(pointer)
    return root


def _is_whole(number: object) -> bool:
    return isinstance(number, int) or (isinstance(number, float) and number.is_integer())


def _list(schema: object, keyword: str) -> list[Any]:
    found = schema.get(keyword) if isinstance(schema, dict) else None
    return found if isinstance(found, list) else []


def _dict(schema: object, keyword: str) -> dict[str, Any]:
    found = schema.get(keyword) if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else {}
