"""``subscribers``, ``endpoints``, ``deliveries`` and ``events``: the API at a terminal, by name as well as by id."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webhook_gateway.rules import ids

from .exits import WRONG, CannotGoOn
from .remote import Profile, every, gateway
from .screen import answers, table, write_json

if TYPE_CHECKING:
    from webhook_gateway.client import Gateway

COLUMNS = {
    "subscribers": ("id", "external_id", "name", "event_types"),
    "endpoints": ("id", "subscriber_id", "name", "url", "state"),
    "deliveries": ("id", "type", "endpoint_id", "state", "attempt", "waiting_for", "created_at"),
    "events": ("id", "type", "accepted_at", "size"),
    "problems": ("endpoint_id", "outcome", "status", "detail", "attempts", "first_at", "last_at", "delivery_id"),
}
PREFIXES = {"subscribers": ids.SUBSCRIBER, "endpoints": ids.ENDPOINT, "deliveries": ids.DELIVERY, "events": ids.EVENT}
CONFIGURED = {
    "create": "Make one.",
    "update": "Change some members.",
    "delete": "Delete it (force=true).",
}
VERBS = {
    "subscribers": {
        **CONFIGURED,
        "portal-links": "Make a link to its portal, for once (capabilities='[\"test\"]', expires_in_seconds=…).",
    },
    "endpoints": {
        **CONFIGURED,
        "pause": "Stop attempts. Deliveries wait; none is dropped.",
        "resume": "Start attempts again, also where the gateway has disabled it.",
        "test": "Send a test event (event_type=…).",
        "rotate-secret": "Make a new signing secret (overlap_seconds=…, secret=…).",
    },
    "deliveries": {
        "replay": "Send a finished one again.",
        "cancel": "Give a pending one up for good.",
        "try-now": "Attempt a pending one now.",
    },
    "events": {},
}
METHODS = {"update": "PATCH", "delete": "DELETE"}

Which = Annotated[str, typer.Argument(metavar="ID_OR_NAME", help="An endpoint's name also as SUBSCRIBER/NAME.")]
Members = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME=VALUE]…", help="As the API calls them; JSON, or else text.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The API's own form.")]


def _value(given: str) -> Any:
    try:
        return json.loads(given)
    except ValueError:
        return given


def _noun(noun: str) -> typer.Typer:
    app = typer.Typer(name=noun, no_args_is_help=True, help=f"{noun.capitalize()}, over the API.")

    @app.command("list")
    def list_all(
        filters: Members = None,
        limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 50,
        all_of_them: Annotated[bool, typer.Option("--all", help="Without a limit.")] = False,
        profile: Profile = "",
        as_json: AsJson = False,
    ) -> None:
        """List them, newest first."""
        with gateway(profile) as api:
            given = _members(api, filters, read=str)
            items = every(api, f"/v1/{noun}", None if all_of_them else limit, **given)
        _print_all(noun, items, as_json=as_json)

    @app.command()
    def show(which: Which, profile: Profile = "", as_json: AsJson = False) -> None:
        """Show one."""
        with gateway(profile) as api:
            _print(api.get(f"/v1/{noun}/{_id(api, noun, which)}"), as_json=as_json)

    def create(members: Members = None, profile: Profile = "", as_json: AsJson = False) -> None:
        with gateway(profile) as api:
            _print(api.post(f"/v1/{noun}", _members(api, members)), as_json=as_json)

    def doing(verb: str) -> Callable[..., None]:
        method, path = METHODS.get(verb, "POST"), "" if verb in METHODS else f"/{verb}"

        def do(which: Which, members: Members = None, profile: Profile = "", as_json: AsJson = False) -> None:
            with gateway(profile) as api:
                given = _members(api, members, read=str if method == "DELETE" else _value)
                where = f"/v1/{noun}/{_id(api, noun, which)}{path}"
                done = api.request(method, where, **given) if method == "DELETE" else api.request(method, where, given)
                _print(done, as_json=as_json)

        return do

    for verb, help in VERBS[noun].items():
        app.command(verb, help=help)(create if verb == "create" else doing(verb))
    return app


def problems(filters: Members = None, profile: Profile = "", as_json: AsJson = False) -> None:
    """List what fails, by endpoint and outcome, since the endpoint last took something.

    [dim]Example:[/dim]  webhook-gateway problems endpoint_id=laboratory/results
    """
    with gateway(profile) as api:
        items = api.get("/v1/problems", **_members(api, filters, read=str))["items"]
    _print_all("problems", items, as_json=as_json)


def _print_all(noun: str, items: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        write_json({"items": items})
        return
    shown = table(*COLUMNS[noun], whole=COLUMNS[noun][0])
    for item in items:
        shown.add_row(*(text(item[column]) for column in COLUMNS[noun]))
    answers.print(shown)


def _members(api: Gateway, given: list[str] | None, read: Callable[[str], Any] = _value) -> dict[str, Any]:
    found = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not equals:
            raise CannotGoOn(f"{one} can't be used: write it as name=value", WRONG)
        if name in ("subscriber_id", "endpoint_id"):
            value = _id(api, name.replace("_id", "s"), value)
        found[name] = read(value)
    return found


def _id(api: Gateway, noun: str, which: str) -> str:
    """The id of what is called so, in any of the ways in which it may be."""
    try:
        ids.parse(PREFIXES[noun], which)
        return which
    except ids.NotAnId as error:
        if VERBS[noun].keys().isdisjoint(CONFIGURED):
            raise CannotGoOn(f"{which} can't be used: {error}", WRONG) from None
    names = {one["id"]: (one["external_id"], one["name"]) for one in every(api, "/v1/subscribers")}
    if noun == "endpoints":
        theirs = [(one, one["name"] or one["url"]) for one in every(api, "/v1/endpoints")]
        names = {one["id"]: (own, *(f"{of}/{own}" for of in names[one["subscriber_id"]])) for one, own in theirs}
    found = [key for key, known_as in names.items() if which in known_as]
    if len(found) != 1:
        raise CannotGoOn(f"{len(found) or 'no'} {noun} are called {which}: `{noun} list` shows their ids", WRONG)
    return str(found[0])


def _print(value: Any, *, as_json: bool) -> None:
    if as_json:
        write_json(value)
        return
    for name, member in (value or {}).items():
        answers.print(f"{name}: {text(member)}", soft_wrap=True)


def text(value: Any) -> str:
    """A member as people read it."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


NOUNS = tuple(map(_noun, VERBS))
