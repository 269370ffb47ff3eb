"""The walls that an import contract can't say: SQL is in `store`, log lines are in `telemetry`, `rules` is pure."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
SOURCE = CHECKOUT / "src" / "webhook_gateway"
FILES = sorted(SOURCE.rglob("*.py"))
PURE = {
    "__future__", "base64", "binascii", "bisect", "collections", "collections.abc", "dataclasses", "datetime",
    "decimal", "email.utils", "enum", "functools", "hashlib", "hmac", "ipaddress", "itertools", "json", "math",
    "msgspec", "msgspec.structs", "operator", "re", "string", "typing", "unicodedata",
    "urllib.parse", "uuid", "zlib",
}  # fmt: skip
"""What `rules` may import: parts of the standard library that do no I/O and read no clock, and msgspec's structs."""
IMPURE = {
    "open", "print", "input", "now", "today", "utcnow", "localtime", "formatdate", "make_msgid",
    "getnode", "uuid1", "uuid4", "uuid6", "uuid7",
}  # fmt: skip
"""What it may not call even so: a clock, chance, or the world outside."""
SQL = re.compile(
    r"^\s*(--.*\n\s*)*(SELECT\s|INSERT INTO\s|UPDATE \w+ SET|DELETE FROM\s|WITH \w+ AS|LISTEN \w|NOTIFY \w|SET \w+ )"
)


def within(room: str) -> list[Path]:
    return [file for file in FILES if file.relative_to(SOURCE).parts[0] == room]


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


@pytest.mark.parametrize("file", within("rules"), ids=lambda file: str(file.relative_to(SOURCE)))
def test_rules_import_only_what_is_pure(file: Path) -> None:
    assert set(imported(file)) <= PURE


@pytest.mark.parametrize("file", within("rules"), ids=lambda file: str(file.relative_to(SOURCE)))
def test_rules_read_no_clock_draw_no_chance_and_wait_for_nothing(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"line {node.lineno}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            assert called not in IMPURE, f"line {node.lineno}: {called}"


def test_no_sql_is_written_outside_of_the_store() -> None:
    found = [
        f"{file.relative_to(SOURCE)}:{node.lineno}"
        for file in set(FILES) - set(within("store"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value)
    ]
    assert found == []


def test_no_log_line_is_worded_outside_of_telemetry() -> None:
    speaking = {str(f.relative_to(SOURCE)) for f in FILES if {"structlog", "logging"} & set(imported(f))}
    assert {name for name in speaking if not name.startswith("client")} == {"telemetry.py"}  # the HMS's own logs


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_each_file_and_each_class_is_read_in_one_sitting(file: Path) -> None:
    in_delivery = file in within("delivery")
    assert len(file.read_text().splitlines()) <= (250 if in_delivery else 350)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
            assert len([part for part in methods if not part.name.startswith("_")]) <= 15, node.name
            if in_delivery or any(part.name == "__init__" for part in methods):  # a record has what its table has
                assert len(attributes(node)) <= 14, node.name


def attributes(definition: ast.ClassDef) -> set[str]:
    """Its fields, and what its methods set on themselves."""
    fields = {
        part.target.id
        for part in definition.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    }
    return fields | {
        node.attr
        for node in ast.walk(definition)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def test_contributing_names_the_rooms_in_the_order_of_the_contract() -> None:
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    page = (CHECKOUT / "CONTRIBUTING.md").read_text()
    said = re.search(r"```text\n(cli\n(?:.*\n)*?)```", page)
    assert said is not None
    assert said[1].split("\n")[:-1] == layers


def test_each_room_says_what_comes_in_and_what_goes_out() -> None:
    for room in sorted(path.parent for path in SOURCE.rglob("__init__.py")):
        assert ast.get_docstring(ast.parse((room / "__init__.py").read_text())), room
