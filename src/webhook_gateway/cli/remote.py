"""A gateway that is asked over its API: where it is, and with which key."""

from __future__ import annotations

import os
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .exits import WRONG, CannotGoOn

if TYPE_CHECKING:
    from webhook_gateway.client import Gateway

PROFILES = Path("~/.config/webhook-gateway/profiles.toml")

Profile = Annotated[
    str,
    typer.Option(
        envvar="GATEWAY_PROFILE",
        metavar="NAME",
        help=f"Of {PROFILES}; by default GATEWAY_URL with GATEWAY_API_KEY, or else the profile `default`.",
    ),
]


def gateway(profile: str) -> Gateway:
    """
    Raises:
        CannotGoOn: it isn't said where it is, or the key can't be had.
    """
    from webhook_gateway.client import Gateway

    try:
        if not profile and (url := os.environ.get("GATEWAY_URL")):
            return Gateway(url, os.environ.get("GATEWAY_API_KEY", ""))
        found = tomllib.loads(PROFILES.expanduser().read_text())[profile or "default"]
        return Gateway(found["url"], _key(found))
    except (OSError, KeyError, TypeError, ValueError, subprocess.CalledProcessError) as error:
        reason = f"no {error} there" if isinstance(error, KeyError) else str(error)
        remedy = f"set GATEWAY_URL and GATEWAY_API_KEY, or see to {PROFILES}: `url`, `key_file` or `key_command`"
        raise CannotGoOn(f"it isn't said which gateway is meant ({reason}): {remedy}", WRONG) from None


def _key(profile: dict[str, str]) -> str:
    if "key_command" in profile:
        command = shlex.split(profile["key_command"])
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return Path(profile["key_file"]).expanduser().read_text().strip()


def every(api: Gateway, path: str, most: int | None = None, **filters: Any) -> list[dict[str, Any]]:
    """The items of all pages of a list, or the first ``most``."""
    items: list[dict[str, Any]] = []
    while most is None or len(items) < most:
        page = api.get(path, limit=200 if most is None else min(200, most - len(items)), **filters)
        items += page["items"]
        filters["cursor"] = page["next_cursor"]
        if filters["cursor"] is None:
            break
    return items
