"""JSON Schemas (2020-12), compiled once, and bounded before: a call of the validator can't be stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import jsonschema_rs

from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.schema_cost import SchemaRefused, cost_of
from webhook_gateway.rules.views import escape

from .faults import Faults, Patience


def _refuse(_: str) -> NoReturn:
    raise ValueError("nothing is fetched")


OPTIONS: dict[str, Any] = {
    "validate_formats": True,
    "retriever": _refuse,
    # The engine without look-around and back-references, which is linear in the text; its caches are small.
    "pattern_options": jsonschema_rs.RegexOptions(size_limit=1_048_576, dfa_size_limit=524_288),
}


class Schema:
    """A schema that is ready for data.

    Raises:
        SchemaRefused: it is no JSON Schema, or not one that can be used here.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._cost = cost_of(schema)
        try:
            self._validator = jsonschema_rs.Draft202012Validator(dict(schema), **OPTIONS)
        except jsonschema_rs.ValidationError as error:
            pointer = "".join(f"/{escape(str(part))}" for part in error.instance_path)
            raise SchemaRefused(pointer, _remedy(pointer)) from None
        except (jsonschema_rs.ReferencingError, ValueError):
            raise SchemaRefused("", "Give a JSON Schema (2020-12) that refers to nothing outside itself.") from None
        self.is_valid = self._validator.is_valid
        self.cost_of = self._cost.of
        """What judging JSON may cost at most, in nanoseconds."""
        self._faults = Faults(schema, OPTIONS)

    def too_much(self) -> Fault:
        """What to say of data that costs more than may be."""
        remedy = f"Send less: this type's schema can be checked for {self._cost.most_values:,} values"
        return Fault("size", f"{remedy} in {self._cost.most_bytes:,} bytes at most.", "")

    def faults(self, data: object, patience: Patience) -> tuple[Fault, ...]:
        """The first places where the data, which is not valid, breaks the schema."""
        return self._faults.of(data, patience)


def _remedy(pointer: str) -> str:
    """The parser's own sentence may quote the schema: its pointer says enough."""
    keyword = pointer.rpartition("/")[2]
    if keyword == "pattern" or pointer.rpartition("/")[0].endswith("/patternProperties"):
        return "Give a regular expression without look-around and back-references."
    return "It is not as JSON Schema (2020-12) has it."
