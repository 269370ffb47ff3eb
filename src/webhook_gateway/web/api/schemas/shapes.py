"""What all requests and answers have in common: how strict they are, how lists go by pages, and examples."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")

MEANINGS: dict[str, str] = {}
"""What text that matches a pattern is, in words: a regular expression tells most people nothing."""


def matching(pattern: str, meaning: str) -> str:
    """The pattern. ``meaning`` is what an error says: "Give …"."""
    MEANINGS[pattern] = meaning
    return pattern


Cursor = Annotated[
    str,
    Field(
        max_length=64,
        pattern=matching(r"^[A-Za-z0-9_-]*$", "the `next_cursor` of the page before, as it came"),
        description="The `next_cursor` of the page before.",
    ),
]


def unchanged(alias: str | None = None) -> Any:
    """A member of a change that may be left out, but not be null."""

    def without_default(schema: dict[str, Any]) -> None:
        schema.pop("default", None)

    return Field(default=None, alias=alias, json_schema_extra=without_default)


def examples(*shown: dict[str, Any]) -> ConfigDict:
    """A model's configuration that shows it filled in, in its JSON Schema."""
    return ConfigDict(json_schema_extra={"examples": list(shown)})


class Body(BaseModel):
    """What somebody sends."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Shown(BaseModel):
    """What is answered."""

    model_config = ConfigDict(populate_by_name=True)


class Paging(Body):
    """How lists are asked for."""

    cursor: Cursor | None = None
    limit: int = Field(50, ge=1, le=200, description="Items on a page.")


class Page(Shown, Generic[T]):
    """A part of a list, mostly with the newest first."""

    items: list[T]
    next_cursor: str | None = Field(
        None, description="Where the next page begins, also after one that is not full; null on the last one."
    )
