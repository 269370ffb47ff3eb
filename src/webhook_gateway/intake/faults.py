"""Where data breaks a schema: the first places, with what to do, and never the value, which may be a patient's.

The validator judges, and this file only looks for where: it lists faults by itself, as many as there are, and each with
a copy of what it is about, so that one small event made two million. Here each step is a question with a yes or no,
and the search ends with the first fifty or when it has taken long enough. Only names that the schema itself has are
told; any other member is ``*``, for a name may be a patient's, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from time import thread_time
from typing import Any
from urllib.parse import quote, unquote

import jsonschema_rs

from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.schema_cost import at
from webhook_gateway.rules.views import escape

MOST_FAULTS = 50
PATIENCE = 0.03
"""Seconds of processor time for one event. Only data that is as large as it may be takes longer."""
RUN = 256
"""Items that are judged together first."""
MOST_LISTED, LONGEST_REMEDY = 20, 400

_DOCUMENT = "urn:webhook-gateway:event-type"
_LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
}
_SIZES = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minProperties": "at least {} members",
    "maxProperties": "at most {} members",
}
_SENTENCES = {
    "uniqueItems": "Its items must differ from each other.",
    "additionalProperties": "Remove the members that the event type's schema does not list.",
    "unevaluatedProperties": "Remove the members that the event type's schema does not list.",
    "anyOf": "It must fit at least one of the schemas that anyOf lists.",
    "oneOf": "It must fit exactly one of the schemas that oneOf lists.",
}
_FROM_PARTS = ("contains", "propertyNames", "unevaluatedProperties", "unevaluatedItems", "additionalProperties")
"""Keywords that need the others beside them to be judged: one of them is meant where no other explains."""
_ALONE = frozenset(
    {"type", "enum", "const", "format", "pattern", "uniqueItems", "dependentRequired", *_LIMITS, *_SIZES}
)
"""Keywords that can be judged without any other."""


class _TookTooLong(Exception):
    """The search ends here."""


@dataclass(slots=True)
class Patience:
    """Seconds of processor time that are left for all events of a request."""

    left: float = 0.3


class Faults:
    """Looks for the faults of one schema, compiled with these options."""

    def __init__(self, schema: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self._schema = schema
        self._options = options
        self._registry: jsonschema_rs.Registry | None = None
        self._judges: dict[tuple[str, str], jsonschema_rs.Draft202012Validator] = {}
        self._until = 0.0
        self._nearest = ""

    def of(self, data: object, patience: Patience) -> tuple[Fault, ...]:
        """The first faults of data that is known to have some; at least one, if only the part that has them."""
        began = thread_time()
        self._until, self._nearest = began + min(PATIENCE, patience.left), ""
        found: list[Fault] = []
        try:
            found.extend(islice(self._explain("", data, ""), MOST_FAULTS))
        except (_TookTooLong, RecursionError):
            remedy = "It breaks the event type's schema within; to find all places would take too long."
            return tuple(found) or (Fault("schema", remedy, self._nearest),)
        finally:
            patience.left -= thread_time() - began
        return tuple(found)

    def _explain(self, here: str, value: Any, pointer: str) -> Iterator[Fault]:
        """Faults of a value that breaks the subschema at ``here``: at least one."""
        schema, self._nearest = at(self._schema, here), pointer
        if not isinstance(schema, dict):
            yield Fault("false", "Remove it: the event type's schema allows nothing here.", pointer)
            return
        found = False
        for fault in self._faults_at(here, schema, value, pointer):
            found = True
            yield fault
        if not found:
            rule = next((keyword for keyword in _FROM_PARTS if keyword in schema), "schema")
            yield Fault(rule, _remedy(rule, None, schema), pointer)

    def _faults_at(self, here: str, schema: Mapping[str, Any], value: Any, pointer: str) -> Iterator[Fault]:
        for keyword, argument in schema.items():
            path = f"{here}/{keyword}"
            match keyword:
                case "$ref":
                    yield from self._break(unquote(argument.partition("#")[2]), value, pointer)
                case "allOf":
                    for index in range(len(argument)):
                        yield from self._break(f"{path}/{index}", value, pointer)
                case "anyOf" | "oneOf":
                    fitting = sum(self._holds(f"{path}/{index}", value) for index in range(len(argument)))
                    if fitting == 0 or (keyword == "oneOf" and fitting > 1):
                        yield Fault(keyword, _remedy(keyword, argument, schema), pointer)
                case "not":
                    if self._holds(path, value):
                        yield Fault(keyword, _remedy(keyword, argument, schema), pointer)
                case "if":
                    branch = "then" if self._holds(path, value) else "else"
                    if branch in schema:
                        yield from self._break(f"{here}/{branch}", value, pointer)
                case "required" if isinstance(value, dict):
                    for name in argument:
                        if name not in value:
                            yield Fault(keyword, f"Add the member {_cut(name, 128)}.", pointer)
                case "dependentSchemas" | "properties" | "patternProperties" | "additionalProperties":
                    if isinstance(value, dict):
                        yield from self._members(keyword, here, schema, value, pointer)
                case "prefixItems" | "items" if isinstance(value, list):
                    yield from self._items(keyword, here, schema, value, pointer)
                case _ if keyword in _ALONE and not self._says(self._judge(path, keyword, argument), value):
                    yield Fault(keyword, _remedy(keyword, argument, schema), pointer)
                case _:
                    pass

    def _members(
        self, keyword: str, here: str, schema: Mapping[str, Any], value: dict[str, Any], pointer: str
    ) -> Iterator[Fault]:
        argument, path = schema[keyword], f"{here}/{keyword}"
        match keyword:
            case "properties":
                for name in argument:
                    if name in value:
                        yield from self._break(f"{path}/{escape(name)}", value[name], f"{pointer}/{escape(name)}")
            case "dependentSchemas":
                for name in argument:
                    if name in value:
                        yield from self._break(f"{path}/{escape(name)}", value, pointer)
            case "patternProperties":
                for pattern in argument:
                    for name, member in value.items():
                        if self._fits(pattern, name):
                            yield from self._break(f"{path}/{escape(pattern)}", member, f"{pointer}/*")
            case _:
                for name, member in value.items():
                    if name in schema.get("properties", {}) or any(
                        self._fits(pattern, name) for pattern in schema.get("patternProperties", {})
                    ):
                        continue
                    if argument is False:
                        yield Fault(keyword, _remedy(keyword, argument, schema), pointer)
                        return
                    yield from self._break(path, member, f"{pointer}/*")

    def _items(
        self, keyword: str, here: str, schema: Mapping[str, Any], value: list[Any], pointer: str
    ) -> Iterator[Fault]:
        first = schema.get("prefixItems", ())
        if keyword == "prefixItems":
            for index, item in enumerate(value[: len(first)]):
                yield from self._break(f"{here}/{keyword}/{index}", item, f"{pointer}/{index}")
            return
        path = f"{here}/{keyword}"
        together = self._judge(path, keyword, {"$ref": _outside(path)})
        for start in range(len(first), len(value), RUN):
            run = value[start : start + RUN]
            if self._says(together, run):
                continue
            for index, item in enumerate(run, start):
                yield from self._break(path, item, f"{pointer}/{index}")

    def _break(self, here: str, value: Any, pointer: str) -> Iterator[Fault]:
        if not self._holds(here, value):
            yield from self._explain(here, value, pointer)

    def _holds(self, here: str, value: Any) -> bool:
        return self._says(self._judge(here, "$ref", _outside(here)), value)

    def _fits(self, pattern: str, name: str) -> bool:
        return self._says(self._judge(pattern, "pattern", pattern), name)

    def _says(self, judge: jsonschema_rs.Draft202012Validator, value: Any) -> bool:
        """
        Raises:
            _TookTooLong: there is no time for another question.
        """
        if thread_time() > self._until:
            raise _TookTooLong
        return judge.is_valid(value)

    def _judge(self, path: str, keyword: str, argument: Any) -> jsonschema_rs.Draft202012Validator:
        """Of this one keyword."""
        if (path, keyword) not in self._judges:
            if self._registry is None:
                self._registry = jsonschema_rs.Registry(
                    [(_DOCUMENT, dict(self._schema))], draft=jsonschema_rs.Draft202012
                )
            self._judges[path, keyword] = jsonschema_rs.Draft202012Validator(
                {keyword: argument}, registry=self._registry, **self._options
            )
        return self._judges[path, keyword]


def _outside(here: str) -> str:
    return f"{_DOCUMENT}#{quote(here)}"


def _remedy(rule: str, argument: Any, schema: Mapping[str, Any]) -> str:
    """What to do, from the schema alone."""
    match rule:
        case "type":
            types: Sequence[str] = [argument] if isinstance(argument, str) else argument
            sentence = f"It must be of type {' or '.join(types)}."
        case "format":
            sentence = f"It must be a {argument}."
        case "enum":
            listed = ", ".join(json.dumps(value, ensure_ascii=False) for value in argument[:MOST_LISTED])
            sentence = f"It must be one of {listed}{', …' if len(argument) > MOST_LISTED else '.'}"
        case "const":
            sentence = f"It must be {json.dumps(argument, ensure_ascii=False)}."
        case "pattern":
            meaning = schema.get("description") or schema.get("title")
            sentence = f"It must match {argument}" + (f" ({meaning})." if isinstance(meaning, str) else ".")
        case _ if rule in _LIMITS:
            sentence = f"It must be {_LIMITS[rule].format(argument)}."
        case _ if rule in _SIZES:
            sentence = f"It must have {_SIZES[rule].format(argument)}."
        case _:
            sentence = _SENTENCES.get(rule, f"It must satisfy {rule} of the event type's schema.")
    return _cut(sentence, LONGEST_REMEDY)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
