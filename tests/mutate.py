"""Do the tests notice? Changes one operator or number at a time and runs some tests on it.

    python -m tests.mutate src/webhook_gateway/rules tests/rules --at-least 0.95

Prints how many changes were noticed, and each that was not: a test is missing, or the change means nothing (the size of
a cache). For code that is pure: each change is made in memory only, in a process of its own, and a conftest.py is not
read. The exit code is 1 if fewer were noticed than asked for.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import hypothesis
import pytest

LONGEST_TEST = 20
"""Seconds. A change that makes a test hang is noticed, too."""
INSTEAD: dict[type[ast.AST], Callable[[], Any]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add,
}  # fmt: skip
"""Numbers become one more."""


@dataclass(frozen=True, slots=True)
class Change:
    """``index`` is the operator's or number's among those of the file, as `places` gives them."""

    file: Path
    index: int
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}  {self.file.read_text().splitlines()[self.line - 1].strip()[:100]}"


def main() -> None:
    asked = arguments()
    files = sorted(asked.code.rglob("*.py")) if asked.code.is_dir() else [asked.code]
    changes = sorted((change for file in files for change in changes_of(file)), key=lambda c: (c.file, c.line))
    # Forked for each change from this process, which has imported everything but what is changed.
    with multiprocessing.get_context("fork").Pool(asked.jobs, maxtasksperchild=1) as processes:
        if processes.apply(notice, (asked.tests, asked.seed, None)):
            sys.exit("The tests fail as they are.")
        noticed = processes.map(partial(notice, asked.tests, asked.seed), changes, chunksize=1)
    print(f"noticed {sum(noticed)} of {len(changes)} changes")
    for change, seen in zip(changes, noticed, strict=True):
        if not seen:
            print(change)
    sys.exit(sum(noticed) < asked.at_least * len(changes))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("code", type=Path, help="a file, or a folder of them")
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--at-least", type=float, default=0.0, help="the part of all that has to be noticed, 0 to 1")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=1, help="for what hypothesis draws")
    return parser.parse_args()


def changes_of(file: Path) -> Iterator[Change]:
    for index, (node, _) in enumerate(places(ast.parse(file.read_text()))):
        yield Change(file, index, node.lineno)


def places(tree: ast.AST) -> Iterator[tuple[ast.expr, int]]:
    """What can be changed; in a chain of comparisons, with the place in the chain."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare():
                yield from ((node, place) for place, operator in enumerate(node.ops) if type(operator) in INSTEAD)
            case ast.BoolOp() | ast.BinOp() if type(node.op) in INSTEAD:
                yield node, 0
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                yield node, 0


def notice(tests: Sequence[str], seed: int, change: Change | None) -> bool:
    """Whether a test fails on the change. For a process that ends after it."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stdout.fileno())
    os.dup2(silence, sys.stderr.fileno())
    plugins = []
    if change is not None:
        sys.meta_path.insert(0, Changed(change))
        plugins.append(OwnTestsFirst(change.file.stem))
    hypothesis.settings.register_profile("mutate", database=None, deadline=None)
    hypothesis.settings.load_profile("mutate")
    options = ["-x", "--noconftest", "--assert=plain", "-pno:cacheprovider", f"--timeout={LONGEST_TEST}"]
    return pytest.main([*options, f"--hypothesis-seed={seed}", *tests], plugins) != pytest.ExitCode.OK


class OwnTestsFirst:
    """They are the likeliest to notice."""

    def __init__(self, stem: str) -> None:
        self._file = f"test_{stem}.py"

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: item.path.name != self._file)


class Changed(MetaPathFinder):
    """Finds the file that is changed, and what it is changed to."""

    def __init__(self, change: Change) -> None:
        self._change = change
        parts = change.file.resolve().with_suffix("").parts
        top = next(depth for depth in range(2, len(parts)) if not Path(*parts[:-depth], "__init__.py").exists())
        self._name = ".".join(parts[-top:])

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return spec_from_file_location(fullname, self._change.file, loader=_Loader(fullname, self._change))


class _Loader(SourceFileLoader):
    def __init__(self, name: str, change: Change) -> None:
        super().__init__(name, str(change.file))
        self._change = change

    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(self._change.file.read_text())
        node, place = list(places(tree))[self._change.index]
        match node:
            case ast.Compare():
                node.ops[place] = INSTEAD[type(node.ops[place])]()
            case ast.BoolOp() | ast.BinOp():
                node.op = INSTEAD[type(node.op)]()
            case ast.Constant(value=int() | float() as number):
                node.value = number + 1
        return compile(tree, self._change.file, "exec")


if __name__ == "__main__":
    main()
