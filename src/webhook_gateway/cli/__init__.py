"""The command line: ``webhook-gateway --help``. One file a group of commands; what they do lives elsewhere."""

from __future__ import annotations

import sys

from webhook_gateway.rules.labels import visible

from .plain import CannotGoOn


def main() -> None:
    """Runs a command. What an operator can fix is said in one sentence; only a bug of ours shows a traceback."""
    try:
        _run()
    except Exception as error:
        known = error if isinstance(error, CannotGoOn) else _explained(error)
        if known is None:
            raise
        print(visible(f"webhook-gateway: {known}"), file=sys.stderr)
        sys.exit(known.status)


def _run() -> None:
    try:
        from .app import app
    except ModuleNotFoundError as error:  # the core alone is installed
        from . import light

        light.main(error.name)
    else:
        app(prog_name="webhook-gateway")


def _explained(error: Exception) -> CannotGoOn | None:
    from .exits import explain

    return explain(error)
