"""What a page's form sends: read within bounds, and only from our own pages."""

from __future__ import annotations

import json
from math import nan
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.requests import Request

from webhook_gateway.rules.faults import Fault
from webhook_gateway.web.errors import Problem, forbidden, invalid
from webhook_gateway.web.guard import too_large

LONGEST = 262_144
MOST_FIELDS = 500
LARGEST = 1_000_000_000
CONFIRMING = {"do", "counted", "expected", "typed"}
"""Fields that say nothing of what is asked for, only that it is meant."""
KIND = "application/x-www-form-urlencoded"


class Form(dict[str, str]):
    """Each field without the space around it; one that is given several times has a line for each."""

    def lines(self, name: str) -> list[str]:
        """What stands in a field, one a line or between commas."""
        return self.get(name, "").replace(",", " ").split()

    def event_types(self) -> list[str]:
        """As ticked or written, each once."""
        return list(dict.fromkeys(self.lines("event_types")))

    def number(self, name: str) -> float | None:
        """
        Raises:
            Problem: 422.
        """
        if not (text := self.get(name, "")):
            return None
        try:
            number = int(text) if text.isdecimal() else float(text)
        except ValueError:
            number = nan
        if abs(number) <= LARGEST:  # neither nan nor inf is
            return number
        raise invalid(Fault("number", f"Give a number, up to {LARGEST:,}.", pointer=f"/{name}"))

    def asked_for(self) -> str:
        """What is asked for, however it is confirmed."""
        return urlencode(sorted((name, value) for name, value in self.items() if value and name not in CONFIRMING))

    def json(self, name: str) -> Any:
        """None where nothing is there.

        Raises:
            Problem: 422.
        """
        try:
            return json.loads(text) if (text := self.get(name, "")) else None
        except (ValueError, RecursionError):
            raise invalid(Fault("json", "Give valid JSON, or nothing.", pointer=f"/{name}")) from None

    def content(self) -> dict[str, Any] | None:
        """How much of an event somebody is to get, as the API takes it; None for as much as is permitted."""
        level = self.get("content")
        if not level:
            return None
        given = {"level": level, "subject": level == "full" or "subject" in self}
        return given if level != "fields" else {**given, "pointers": self.lines("pointers")}


def check_origin(request: Request, public_url: str | None) -> None:
    """
    Raises:
        Problem: 403: another site's page has sent it, or nobody says which one.
    """
    told = request.headers.get("sec-fetch-site")
    if told is not None:
        is_ours = told == "same-origin"
    else:
        origin = urlsplit(request.headers.get("origin", ""))
        ours = {request.headers.get("host", ""), urlsplit(public_url or "").netloc} - {""}
        is_ours = origin.netloc in ours
    if not is_ours:
        raise forbidden("This form was sent from elsewhere. Open the console itself, and send it from there.")


async def read_form(request: Request) -> Form:
    """
    Raises:
        Problem: 413, 415 or 422.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST:
            raise too_large(LONGEST)
    if body and request.headers.get("content-type", "").partition(";")[0].strip().lower() != KIND:
        raise Problem(415, "unsupported-media-type", f"Send the form as {KIND}.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        remedy = f"Send at most {MOST_FIELDS} fields, in UTF-8."
        raise invalid(Fault("form", remedy, pointer="")) from None
    form = Form()
    for name, value in pairs:
        plain = value.strip().replace("\r\n", "\n")
        form[name] = f"{form[name]}\n{plain}" if name in form else plain
    return form
