"""Enough of typer for `sign`, `verify` and `listen` where only the core is installed, without the gateway."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from .plain import WRONG, CannotGoOn

INSTALL = "pip install 'hms-webhook-gateway[server]'"

Exit = SystemExit


@dataclass(frozen=True)
class Option:
    name: str
    short: str = ""
    envvar: str = ""
    help: str = ""
    min: int = 0
    max: int = sys.maxsize
    show_default: bool = True


def main(missing: str | None) -> None:
    """Runs one of the core's commands as typer would; of any other it says what to install."""
    from .listen import listen
    from .receive import sign, verify

    commands: dict[str, Callable[..., None]] = {"sign": sign, "verify": verify, "listen": listen}
    name, *words = sys.argv[1:] or ["--help"]
    if name in commands:
        _run(commands[name], words)
    elif name in ("-h", "--help"):
        print(f"webhook-gateway {' | '.join(commands)}: --help after one says more. For all others: {INSTALL}")
    else:
        raise CannotGoOn(f"{name} needs the gateway, and {missing} is not installed: {INSTALL}", WRONG)


def _run(command: Callable[..., None], words: list[str]) -> None:
    parameters = inspect.signature(command).parameters
    annotated = get_type_hints(command, include_extras=True)
    options: dict[str, tuple[type, Option]] = {name: get_args(annotated[name]) for name in parameters}
    called = {word: name for name, (_, option) in options.items() for word in (option.name, option.short)}
    given: dict[str, Any] = {n: os.environ[one.envvar] for n, (_, one) in options.items() if one.envvar in os.environ}
    left = iter(words)
    for word in left:
        name, _, value = word.partition("=")
        if name in ("-h", "--help"):
            print(inspect.cleandoc(command.__doc__ or "").replace("[dim]", "").replace("[/dim]", ""), "\n")
            print("\n".join(f"  {option.name:<12} {option.help}" for _, option in options.values()))
            return
        if name not in called:
            raise CannotGoOn(f"{name} is unknown: see --help", WRONG)
        given[called[name]] = options[called[name]][0] is bool or value or next(left, "")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and not given.get(name):
            raise CannotGoOn(f"give {options[name][1].name}", WRONG)
    command(**{name: _value(*options[name], value) for name, value in given.items()})


def _value(kind: type, option: Option, given: Any) -> Any:
    if kind is not int:
        return given
    if not (given.isascii() and given.isdigit() and option.min <= int(given) <= option.max):
        raise CannotGoOn(f"{option.name}: give a number from {option.min} to {option.max}", WRONG)
    return int(given)
