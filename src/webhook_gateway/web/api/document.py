"""The OpenAPI document: every operation with its scope, its examples, and every problem that it may answer with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from webhook_gateway import __version__
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.web.errors import MEDIA_TYPE, TITLES, TYPE

from . import well_known
from .event_bodies import BatchIn, EventIn
from .events import BatchOut, ReceiptOut
from .schemas.problems import Problem

REFERENCE = "#/components/schemas/{}"

PROBLEMS: dict[int, tuple[str, str]] = {
    400: ("malformed-json", "The body is not JSON."),
    401: ("unauthorized", "No key, or none that is live and may be used from here."),
    403: ("forbidden", "The key lacks the scope, or is bound to one subscriber."),
    404: ("not-found", "No such thing, or not one that this key may see."),
    409: ("conflict", "The state of things forbids it."),
    410: ("gone", "The event is known, and its body and description are no longer kept."),
    413: ("body-too-large", "The body is over the limit."),
    415: ("unsupported-media-type", "The body has another content type than JSON."),
    422: ("invalid-request", "The request breaks a rule; `errors` says where and what to do."),
    429: ("too-many-requests", "The key is used too often."),
    500: ("internal-error", "The gateway failed."),
    503: ("unavailable", "The database or an encryption key is unavailable: ask again."),
}

ABOUT = """
Webhook delivery for hospitals. Post events; the gateway stores each before it answers `202`, and delivers it to every
endpoint that wants it: signed (Standard Webhooks), retried, in order where asked.

Every error is a problem (RFC 9457). Lists are paged: give `next_cursor` back as `cursor`. Ids tell what they are of
(`evt_…`, `sub_…`, `ep_…`, `dlv_…`, `key_…`, `job_…`) and sort by time.
"""

TAGS = [
    {"name": "Events", "description": "What happened. Services post events; operators see what became of them."},
    {"name": "Event types", "description": "What may happen, and what its data looks like."},
    {"name": "Subscribers", "description": "Partner organisations."},
    {"name": "Endpoints", "description": "Partners' URLs, with their limits, secrets, state and health."},
    {"name": "Deliveries", "description": "One event on its way to one endpoint, with every attempt."},
    {"name": "Search", "description": "What an id or a key is, and where it leads."},
    {"name": "Replays", "description": "Sending many finished deliveries again."},
    {"name": "Keys", "description": "Who may do what."},
    {"name": "Audit", "description": "Who changed what."},
    {"name": "Disclosures", "description": "Who got what, about whom."},
    {"name": "Stats", "description": "How far behind the gateway is."},
    {"name": "Public keys", "description": "For partners who verify Ed25519 signatures. Without a key."},
    {"name": "Health", "description": "For load balancers and orchestrators. Without a key."},
]


def describe(app: FastAPI, routers: Iterable[APIRouter]) -> dict[str, Any]:
    """The whole document, made once."""
    document = get_openapi(
        title="Webhook gateway", version=__version__, description=ABOUT, routes=app.routes, tags=TAGS
    )
    components: dict[str, Any] = document["components"]["schemas"]
    components.pop("HTTPValidationError", None)
    components.pop("ValidationError", None)
    _add_problem(components)
    _add_events(document["paths"], components)
    scopes = dict(_scopes(routers))
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _complete(path, method, operation, scopes.get(operation["operationId"]))
            _add_examples(operation, components)
    return document


def _scopes(routers: Iterable[APIRouter]) -> Iterator[tuple[str, Scope]]:
    """The scope that each operation needs, from the dependency that asks for it."""
    yield "postEvent", Scope.EVENTS_WRITE
    yield "postEvents", Scope.EVENTS_WRITE
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.operation_id is not None:
                for dependency in route.dependant.dependencies:
                    if isinstance(scope := getattr(dependency.call, "scope", None), Scope):
                        yield route.operation_id, scope


def _complete(path: str, method: str, operation: dict[str, Any], scope: Scope | None) -> None:
    """Adds the scope and the problems."""
    responses = operation["responses"]
    responses.pop("422", None)
    is_open = path in {"/healthz", "/readyz", well_known.PATH}
    expected = {"/healthz": set(), "/readyz": {503}}.get(path, {429, 500, 503})
    if not is_open:
        expected = expected | {401}
    if scope is not None:
        operation["description"] += f"\n\nNeeds the scope `{scope.value}`."
        operation["x-required-scope"] = scope.value
        expected.add(403)
    if "requestBody" in operation:
        expected |= {400, 413, 415, 422}
    if any(parameter["in"] == "query" for parameter in operation.get("parameters", ())):
        expected.add(422)
    if "{" in path:
        expected.add(404)
    if "{event_id}" in path:
        expected.add(410)
    if method in {"post", "patch", "delete"}:
        expected |= {404, 409}
    if path.endswith("/preview"):
        expected.add(409)
    if is_open:
        operation["security"] = []
    for status in sorted(expected):
        responses[str(status)] = _problem(status)


def _problem(status: int) -> dict[str, Any]:
    name, description = PROBLEMS[status]
    example: dict[str, Any] = {
        "type": TYPE + name,
        "title": TITLES[name],
        "status": status,
        "detail": "What to do, in a sentence.",
        "request_id": "req_01h455vb4pex5vsknk084sn02q",
    }
    if status == 422:
        example["errors"] = [{"pointer": "/url", "rule": "https_required", "remedy": "Use https://."}]
    response: dict[str, Any] = {
        "description": description,
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": REFERENCE.format("Problem")},
                "examples": {name: {"value": example}},
            }
        },
    }
    if status in {429, 503}:
        response["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return response


def _add_examples(operation: dict[str, Any], components: dict[str, Any]) -> None:
    """Brings the examples of schemas to where tools look for them."""
    contents = [operation["requestBody"]["content"]] if "requestBody" in operation else []
    contents += [response["content"] for response in operation["responses"].values() if "content" in response]
    for content in contents:
        media = content.get("application/json")
        if media is None or "examples" in media or "schema" not in media:
            continue
        if example := _example_of(media["schema"], components):
            media["examples"] = {"example": {"value": example}}


def _example_of(schema: dict[str, Any], components: dict[str, Any]) -> Any:
    """The schema's own example; a list's is one of its items'."""
    for option in schema.get("anyOf", ()):
        if example := _example_of(option, components):
            return example
    if "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]]
    if "examples" in schema:
        return schema["examples"][0]
    items = schema.get("properties", {}).get("items")
    if items is None:
        return None
    paged = {"next_cursor": None} if "next_cursor" in schema["properties"] else {}
    return {"items": [_example_of(items["items"], components)], **paged}


def _add_problem(components: dict[str, Any]) -> None:
    schema = Problem.model_json_schema(ref_template=REFERENCE.format("{model}"))
    components |= schema.pop("$defs", {})
    components["Problem"] = schema


# The byte routes go past the framework, so what they take and answer is written down here.

_EVENT = {
    "type": "staff_shift.assigned",
    "data": {
        "shift_id": "shf_81",
        "staff_id": "st_19",
        "role": "nurse",
        "unit": "icu",
        "starts_at": "2026-11-24T06:00:00+02:00",
        "ends_at": "2026-11-24T14:00:00+02:00",
        "version": 1,
    },
    "idempotency_key": "shift-81-v1",
}
_RECEIPT = {
    "id": "evt_01h455vb4pex5vsknk084sn02q",
    "type": "staff_shift.assigned",
    "accepted_at": "2026-11-23T08:00:00.123456Z",
    "duplicate": False,
}


def _add_events(paths: dict[str, Any], components: dict[str, Any]) -> None:
    shapes = [EventIn, BatchIn, ReceiptOut, BatchOut]
    _, given = msgspec.json.schema_components(shapes, ref_template=REFERENCE.format("{name}"))
    given["EventIn"]["properties"]["data"] |= {"type": "object"}
    results = {"accepted": 1, "refused": 0, "results": [{"index": 0, "status": 202, **_RECEIPT}]}
    examples = {"EventIn": _EVENT, "BatchIn": {"events": [_EVENT]}, "ReceiptOut": _RECEIPT, "BatchOut": results}
    for name, example in examples.items():
        given[name]["examples"] = [example]
    components |= given
    header = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "The same as the member `idempotency_key`.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]+$"},
        "example": "shift-81-v1",
    }
    one = {
        "summary": "Post an event",
        "description": "Stores the event and then answers: from then on it will be delivered. To be safe against lost "
        "answers, give an idempotency key (in the body or as the header) and post again until there is an answer.",
        "operationId": "postEvent",
        "parameters": [header],
        "requestBody": {"required": True, "content": _json("EventIn")},
        "responses": {"202": {"description": "The event is committed.", "content": _json("ReceiptOut")}},
    }
    many = {
        "summary": "Post many events",
        "description": "Stores up to 1,000 events in the order given. Each has its own result: whatever is wrong with "
        "one refuses that one alone. The header `Idempotency-Key` is for single events.",
        "operationId": "postEvents",
        "requestBody": {"required": True, "content": _json("BatchIn")},
        "responses": {"200": {"description": "A result for each event.", "content": _json("BatchOut")}},
    }
    for path, operation in (("/v1/events", one), ("/v1/events/batch", many)):
        paths.setdefault(path, {})["post"] = {"tags": ["Events"], **operation, "security": [{"API key": []}]}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REFERENCE.format(name)}}}
