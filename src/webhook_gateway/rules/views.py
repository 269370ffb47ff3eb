"""How much of an event somebody gets: sets of JSON Pointers (RFC 6901) into ``data``, and the body cut down to one.

``*`` stands for every item of a list, and only for that. A set is a tree of names: `EVERYTHING` below one that is given
whole, so that what a type gets later is in no set but the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from .faults import Fault

Tree: TypeAlias = "Mapping[str, Tree] | Literal[True]"
EVERYTHING: Final = True
NOTHING: Final[Tree] = {}
EVERY_ITEM = "*"

MOST_POINTERS, LONGEST_POINTER = 200, 256
_TOKENS = re.compile(r"(/(?:[^~/]|~[01])*)*")
_ITEMS, _MEMBERS = ("items", "prefixItems"), ("properties", "patternProperties")
_NUMBER = re.compile(r"[0-9]+")
_REFERENCE = re.compile(rb'"\$ref":"(?!#/\$defs/)')
"""To a place in a schema that is not there any more when it is cut."""


def escape(name: str) -> str:
    """A member's name as a part of a JSON Pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def tokens_of(pointer: str) -> list[str]:
    """What the pointer's names are, unescaped."""
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def faults_of(pointers: Sequence[str]) -> tuple[Fault, ...]:
    """Where they are no set of pointers, by place in the list."""
    if len(pointers) > MOST_POINTERS:
        return (Fault("too_many", f"Give at most {MOST_POINTERS} pointers.", ""),)
    return tuple(Fault("pointer", remedy, f"/{at}") for at, each in enumerate(pointers) if (remedy := _remedy(each)))


def tree_of(pointers: Iterable[str]) -> Tree:
    """The set that holds what any of the pointers leads to; they have no faults."""
    root: dict[str, Any] = {}
    for pointer in pointers:
        *way, last = ["", *tokens_of(pointer)]
        node: Any = root
        for token in way:
            node = node if node is EVERYTHING else node.setdefault(token, {})
        if node is not EVERYTHING:
            node[last] = EVERYTHING
    tree: Tree = root.get("", NOTHING)
    return tree


def intersect(one: Tree, other: Tree) -> Tree:
    """What both hold."""
    if one is EVERYTHING:
        return other
    if other is EVERYTHING:
        return one
    both = {token: intersect(below, other[token]) for token, below in one.items() if token in other}
    return {token: below for token, below in both.items() if below}


def pointers_of(tree: Tree) -> list[str]:
    """The shortest pointers to all that is in the set."""
    if tree is EVERYTHING:
        return [""]
    return [f"/{escape(token)}{rest}" for token, below in tree.items() for rest in pointers_of(below)]


class View(msgspec.Struct, frozen=True):
    """How much an endpoint gets: a set, of each type no more than ``thin`` has of it, and whether the subject."""

    tree: Tree = EVERYTHING
    is_thin: bool = False
    subject: bool = True

    def of(self, thin: Tree) -> Tree:
        """What it gets of a type's ``data``."""
        return intersect(self.tree, thin) if self.is_thin else self.tree

    def is_within(self, other: View) -> bool:
        """Whether who gets the other gets all of this, of whatever type."""
        is_thinner = self.is_thin or not other.is_thin
        return is_thinner and self.subject <= other.subject and intersect(self.tree, other.tree) == self.tree


WHOLE = View()


def view_of(*contents: Mapping[str, Any] | None) -> View:
    """What each of the contents, as they are stored, leaves of an event."""
    given = [content for content in contents if content is not None]
    trees = [tree_of(content["pointers"]) for content in given if content["level"] == "fields"]
    levels = {content["level"] for content in given}
    return View(reduce(intersect, trees, EVERYTHING), "thin" in levels, all(content["subject"] for content in given))


class _Envelope(msgspec.Struct, omit_defaults=True, kw_only=True):
    """All that a partner may get, in its order. What else a stored body ever has is left out."""

    id: msgspec.Raw
    type: msgspec.Raw
    timestamp: msgspec.Raw
    test: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw
    subject: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_envelope = msgspec.json.Decoder(_Envelope)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])
_encode = msgspec.json.Encoder().encode


def cut(body: bytes, tree: Tree, subject: bool) -> bytes:
    """The body of an event with the part of ``data`` that is in the tree, whose values stay byte for byte.

    An object or a list from which nothing is taken is left out, too: that it was there is not in the set either.
    """
    if tree is EVERYTHING and subject:
        return body
    envelope = _envelope.decode(body)
    if tree is not EVERYTHING:
        envelope.data = cast("msgspec.Raw", _cut(envelope.data, tree) or {})  # it is encoded alike
    if not subject:
        envelope.subject = msgspec.UNSET
    return _encode(envelope)


def _cut(value: msgspec.Raw, tree: Mapping[str, Tree]) -> Any:
    """A dict or list of raw values, or None."""
    match memoryview(value)[0]:
        case 0x7B:  # {
            members = {}
            for name, member in _object.decode(value).items():
                below = tree.get(name)
                if below is EVERYTHING:
                    members[name] = member
                elif below is not None and (kept := _cut(member, below)) is not None:
                    members[name] = kept
            members.pop(EVERY_ITEM, None)
            return members or None
        case 0x5B if (below := tree.get(EVERY_ITEM)) is not None:  # [
            items = _list.decode(value)
            if below is EVERYTHING:
                return items or None
            return [kept for item in items if (kept := _cut(item, below)) is not None] or None
        case _:
            return None


def cut_schema(schema: Mapping[str, Any], tree: Tree) -> Any:
    """A JSON Schema of data that `cut` leaves of what obeys this one; no narrower than it has to be."""
    if tree is EVERYTHING:
        return schema
    head = {keyword: schema[keyword] for keyword in ("$schema", "$id", "$defs", "title") if keyword in schema}
    return head | _cut_schema(schema, [schema], tree)[0]


def _cut_schema(schema: Mapping[str, Any], places: Sequence[Any], tree: Tree) -> tuple[dict[str, Any], bool]:
    """Of what is in these places, and whether `cut` leaves something of it wherever it is."""
    only = places[0] if len(places) == 1 and isinstance(places[0], Mapping) else {}
    if tree is EVERYTHING:
        return (dict(only) if _REFERENCE.search(msgspec.json.encode(only)) is None else {}), True
    applied = _applied(schema, places)
    below = {token: _cut_schema(schema, list(_below(applied, token)), part) for token, part in tree.items()}
    items, _ = below.pop(EVERY_ITEM, (False, False))
    required = [name for name in only.get("required", ()) if name in below and below[name][1]]
    told = {keyword: only[keyword] for keyword in ("type", "description") if keyword in only}
    members = {name: each for name, (each, _) in below.items()}
    shape = {"properties": members, "required": required, "additionalProperties": False, "items": items}
    return {**told, **shape}, bool(required) and only.get("type") == "object"


def fits(schema: Mapping[str, Any], pointer: str) -> bool:
    """Whether data of this JSON Schema may have something there, by what it names; where it names nothing, it may."""
    places: list[Any] = [schema]
    for token in tokens_of(pointer):
        places = list(_below(_applied(schema, places), token))
    return any(place is not False for place in places)


def _applied(schema: Mapping[str, Any], places: Iterable[Any]) -> list[Any]:
    """The schemas with those that they refer to or are made up of, each once."""
    found: dict[int, Any] = {}
    waiting = [place for place in places if place is not False]
    while waiting:
        place = waiting.pop()
        if id(place) in found:
            continue
        found[id(place)] = place
        if isinstance(place, Mapping):
            for keyword in ("allOf", "anyOf", "oneOf"):
                waiting += place.get(keyword, ())
            waiting += [place[keyword] for keyword in ("then", "else") if keyword in place]
            if "$ref" in place:
                waiting.append(_referred(schema, place["$ref"]))
    return list(found.values())


def _referred(schema: Mapping[str, Any], reference: str) -> Any:
    place: Any = schema
    for token in tokens_of(reference.partition("#")[2]):
        place = place[int(token)] if isinstance(place, list) else place.get(token, True)
    return place


def _below(applied: Sequence[Any], token: str) -> Iterator[Any]:
    """The schemas of what the token leads to; True, which allows anything, where nothing is said of it."""
    kind, naming = ("array", _ITEMS) if token == EVERY_ITEM else ("object", _MEMBERS)
    kinds = [place.get("type", ()) if isinstance(place, Mapping) else () for place in applied]
    said = [place for place in applied if isinstance(place, Mapping) and any(keyword in place for keyword in naming)]
    if not said and (any(kind in each for each in kinds) or not any(kinds)):
        yield from [True] if applied else ()
    for place in said:
        if kind == "array":
            yield from place.get("prefixItems", ())
            yield place.get("items", False)
        else:
            named = place.get("properties", {})
            yield named.get(token, False)
            yield from place.get("patternProperties", {}).values()
            if isinstance(place.get("additionalProperties"), Mapping):
                yield place["additionalProperties"]


def _remedy(pointer: str) -> str | None:
    if len(pointer) > LONGEST_POINTER:
        return f"Give at most {LONGEST_POINTER} characters."
    if not _TOKENS.fullmatch(pointer):
        return "Give a JSON Pointer into `data`: it begins with /, and ~ and / in a name are ~0 and ~1."
    if any(map(_NUMBER.fullmatch, tokens_of(pointer))):
        return "Give * in place of an item's number: it stands for every item."
    return None
