"""Templates, and how times, numbers and ids are written in them. The portal's are the console's, with its paths."""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from functools import cache, partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from webhook_gateway.rules import ids
from webhook_gateway.rules.labels import visible
from webhook_gateway.store.sessions import IDLE

from .files import url_of
from .signed_in import PATH

PLACES = {ids.DELIVERY: "deliveries", ids.EVENT: "events"}
NAMED = re.compile(rf"\b({'|'.join(PLACES)})_[0-9a-hjkmnp-tv-z]{{26}}\b")
UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


class Zone:
    """How times are shown: in the zone of that name, or in UTC where there is none such."""

    def __init__(self, name: str) -> None:
        try:
            self.zone: tzinfo = ZoneInfo(name)
            self.name = name
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.zone, self.name = UTC, "UTC"
        self._today = datetime.now(self.zone).date()

    def show(self, moment: datetime) -> str:
        local = moment.astimezone(self.zone)
        return f"{local:%H:%M:%S %Z}" if local.date() == self._today else f"{local:%d %b %Y %H:%M:%S %Z}"


def render(root: str, template: str, zone: Zone, context: Mapping[str, Any]) -> str:
    return _environment(root).get_template(template).render(zone=zone, now=datetime.now(UTC), **context)


@pass_context
def _time(context: Context, moment: datetime | str | None) -> str | Markup:
    if moment is None:
        return "–"
    moment = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    zone: Zone = context["zone"]
    return Markup('<time datetime="%s">%s</time>') % (moment.astimezone(UTC).isoformat(), zone.show(moment))


@pass_context
def _ago(context: Context, moment: datetime | None) -> str:
    """``12 minutes ago``, or ``in 4 minutes``."""
    if moment is None:
        return "never"
    seconds = (context["now"] - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{_span(seconds)} ago" if seconds > 0 else f"in {_span(-seconds)}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    seconds = float(seconds)
    if 0 < seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    for size, name in UNITS:
        if seconds >= size or size == 1:
            count = round(seconds / size, 1) if size == 1 and seconds < 10 else int(seconds // size)
            return f"{count:g} {name}{'' if count == 1 else 's'}"
    return ""


def _linked(text: str, root: str) -> Markup:
    """A sentence whose ids lead to their pages."""
    found = NAMED.sub(lambda id: f'<a href="{root}/{PLACES[id[1]]}/{id[0]}">{id[0]}</a>', str(escape(_told(text))))
    return Markup(found)  # noqa: S704 - escaped above


def _told(text: str) -> str:
    """A sentence of the API in the console's words."""
    return re.sub(r"\b(s|S)ubscriber(?=s?\b)", lambda found: "partner" if found[1] == "s" else "Partner", text)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,}"


def _id(value: UUID | None, prefix: str) -> str:
    return "" if value is None else ids.render(prefix, value)


def _json(value: Any) -> str:
    return visible(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _pretty(body: str | bytes) -> str:
    """JSON with a line for each member; digits stay as they came."""
    text = body.encode() if isinstance(body, str) else body
    return visible(msgspec.json.format(text, indent=2).decode(errors="replace"))


class _Templates(PackageLoader):
    """Those of the console, whose links lead to pages below another root."""

    def __init__(self, root: str) -> None:
        super().__init__(__name__.rpartition(".")[0])
        self._root = root

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool] | None]:
        source, name, is_current = super().get_source(environment, template)
        return source.replace(PATH, self._root), name, is_current


@cache
def _environment(root: str) -> Environment:
    environment = Environment(
        loader=_Templates(root),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals |= {"file": partial(url_of, root), "idle": IDLE, "token": secrets.token_urlsafe}
    environment.filters |= _FILTERS
    return environment


_FILTERS: dict[str, Callable[..., Any]] = {
    "time": _time,
    "ago": _ago,
    "span": _span,
    "number": _number,
    "id": _id,
    "json": _json,
    "pretty": _pretty,
    "local": lambda moment, zone: moment.astimezone(zone.zone).strftime("%Y-%m-%dT%H:%M"),
    "seen": visible,
    "linked": _linked,
    "told": _told,
    "quoted": shlex.quote,
}
