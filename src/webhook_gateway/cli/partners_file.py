"""The YAML that `apply` reads and `export` writes: the API's own document, with secrets by reference.

``!env NAME`` is a variable of the environment, ``!file PATH`` what a file holds, beside this one where it is relative.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from webhook_gateway.rules.model import DEFAULT_SCHEDULE
from webhook_gateway.web.api.schemas.endpoints import UrlOfPartner
from webhook_gateway.web.api.schemas.subscribers import NewSubscriber

from .exits import WRONG, CannotGoOn

LONGEST = 1_000_000
SECRETS = {"secret", "password", "token", "client_secret", "key"}
NEVER_SHOWN = {"headers", "authorization", "tls"}
LEFT_OUT = (None, "", list(DEFAULT_SCHEDULE))


class File:
    """A document, and the line of each place in it."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines = path, dict[str, int]()
        try:
            text = path.read_text()
            if len(text) > LONGEST:
                raise CannotGoOn(f"{path} is longer than {LONGEST:,} characters: split it", WRONG)
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
                raise CannotGoOn(f"{path} has an alias (*): write out what it stands for", WRONG)
            self.document = self._read(yaml.compose(text, yaml.SafeLoader) or ScalarNode("null", ""), "")
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise CannotGoOn(f"{path} can't be read: {' '.join(str(error).split())}", WRONG) from None
        if not isinstance(self.document, dict):
            raise CannotGoOn(f"{path} holds no document: begin it with `subscribers:`", WRONG)

    def place(self, pointer: str) -> str:
        """``partners.yaml:12`` for a JSON Pointer into it, or into what isn't there."""
        while pointer not in self._lines:
            pointer = pointer.rpartition("/")[0]
        return f"{self._path}:{self._lines[pointer]}"

    def _read(self, node: Node, pointer: str) -> Any:
        self._lines.setdefault(pointer, node.start_mark.line + 1 if node.start_mark else 1)
        match node:
            case MappingNode():
                return dict(self._members(node, pointer))
            case SequenceNode():
                return [self._read(item, f"{pointer}/{index}") for index, item in enumerate(node.value)]
            case _:
                return self._scalar(node, pointer)

    def _members(self, node: MappingNode, pointer: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.value:
            place = f"{pointer}/{key.value}"
            if not isinstance(key, ScalarNode) or place in self._lines:
                raise self._wrong(pointer, key, "name each member once, by a text")
            self._lines[place] = key.start_mark.line + 1
            yield key.value, self._read(value, place)

    def _scalar(self, node: ScalarNode, pointer: str) -> Any:
        text = str(node.value)
        match node.tag.rpartition(":")[2]:
            case "!env" if text in os.environ:
                return os.environ[text]
            case "!env":
                raise self._wrong(pointer, node, f"set {text} in the environment, or take the member away: it stays")
            case "!file":
                return (self._path.parent / Path(text).expanduser()).read_text().rstrip("\n")
            case "null":
                return None
            case _ if _is_secret(pointer):
                raise self._wrong(pointer, node, "keep secrets out of this file: write !env NAME or !file PATH")
            case "bool" | "int":
                return yaml.SafeLoader("").construct_object(node)
            case "float":
                return float(text)
            case "str" | "timestamp":
                return text
            case tag:
                raise self._wrong(pointer, node, f"{tag} is unknown: there are !env and !file")

    def _wrong(self, pointer: str, node: Node, remedy: str) -> CannotGoOn:
        return CannotGoOn(f"{self._path}:{node.start_mark.line + 1} {pointer}: {remedy}", WRONG)


def _is_secret(pointer: str) -> bool:
    *within, member = pointer.split("/")
    return "filter" not in within and (member in SECRETS or "headers" in within)


def written(subscribers: Iterable[dict[str, Any]], endpoints: Iterable[dict[str, Any]]) -> Iterator[str]:
    """What the API shows, as a file that changes nothing when it is applied."""
    partners = {one["id"]: {**_members(one, NewSubscriber.model_fields), "endpoints": []} for one in subscribers}
    for one in endpoints:
        partner = partners[one["subscriber_id"]]
        partner["endpoints"].append(_members(one, UrlOfPartner.model_fields))
        if kept := [name for name in sorted(NEVER_SHOWN) if one.get(name) or one.get(f"{name.rstrip('s')}_names")]:
            yield f"# Not in here, and stays as it is: {', '.join(kept)} of {partner['name']}, {one['url']}"
    yield yaml.safe_dump({"subscribers": list(partners.values())}, sort_keys=False, allow_unicode=True, width=120)


def _members(one: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: one[name] for name in fields if name not in NEVER_SHOWN and one.get(name) not in LEFT_OUT}
    if content := found.get("content"):
        found["content"] = {name: content[name] for name in content if name != "means" and content[name] is not None}
    return found
