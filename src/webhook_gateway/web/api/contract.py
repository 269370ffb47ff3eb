"""What one endpoint gets, as the webhooks of an OpenAPI 3.1 document: for partners' generators and validators."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter

from webhook_gateway.intake.catalogue import EventType
from webhook_gateway.operations.content import view_of_endpoint
from webhook_gateway.operations.endpoints import find
from webhook_gateway.operations.permission import types_of
from webhook_gateway.rules import ids
from webhook_gateway.rules.matching import may_have
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.rules.views import View, cut_schema, tree_of
from webhook_gateway.web.callers import Caller
from webhook_gateway.web.errors import granted

from .dependencies import Parts, needs
from .schemas.typed_ids import EndpointId

router = APIRouter(prefix="/v1/endpoints", tags=["Endpoints"])

_LATER = "Tries again, and sends nothing at all before the Retry-After is over."
COMPONENTS: dict[str, Any] = {
    "parameters": {
        name: {"name": name, "in": "header", "description": description, "required": required, "schema": schema}
        for name, required, schema, description in (
            (
                "webhook-id",
                True,
                {"pattern": "^evt_"},
                "The event's id, the same for each attempt: deduplicate on it.",
            ),
            ("webhook-timestamp", True, {"pattern": "^[0-9]+$"}, "When this attempt was made, in Unix seconds."),
            ("webhook-signature", True, {}, "One or more signatures (Standard Webhooks), separated by spaces."),
            ("webhook-test", False, {"const": "true"}, "Only for a test, of which nothing has happened."),
            ("webhook-skipped-id", False, {}, "The event before it in its ordering key, where you did not get that."),
        )
    },
    "responses": {
        "2XX": {"description": "You have it."},
        "410": {"description": "Switches the endpoint off. Its events wait."},
        "429": {"description": _LATER},
        "503": {"description": _LATER},
        "default": {"description": "Tries again. Redirects are not followed."},
    },
}


@router.get(
    "/{endpoint_id}/contract",
    response_model=dict[str, Any],
    responses={200: {"content": {"application/json": {"example": {"openapi": "3.1.0", "webhooks": {}}}}}},
    operation_id="getContract",
    summary="Look at what an endpoint gets, as OpenAPI",
)
async def contract(
    endpoint_id: EndpointId, gateway: Parts, caller: Annotated[Caller, needs(Scope.ENDPOINTS_READ)]
) -> Any:
    """Describes the webhooks of the endpoint in OpenAPI 3.1, for generators and validators.

    Each type that it gets now, with the schema cut down to its content, the headers, and the answers that count.
    """
    async with gateway.database.begin() as connection:
        row = granted(await find(connection, caller, endpoint_id))
    types, view = types_of(row), view_of_endpoint(row)
    every = [known for known in gateway.catalogue.all(caller.tenant_id) if may_have(types, known.name)]
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Webhooks of {ids.render(ids.ENDPOINT, endpoint_id)}", "version": str(row["revision"])},
        "webhooks": {known.name: {"post": _operation(known, view)} for known in every},
        "components": COMPONENTS,
    }


def _operation(known: EventType, view: View) -> dict[str, Any]:
    members = {
        "id": {"type": "string"},
        "type": {"const": known.name},
        "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
        "test": {"const": True, "description": "Only in a test, of which nothing has happened."},
        # With an id of its own, what it refers to is within it, and not within this document.
        "data": {"$id": f"urn:webhook-gateway:{known.name}", **cut_schema(known.schema, view.of(tree_of(known.thin)))},
        **({"subject": {"type": "string"}} if view.subject else {}),
    }
    body = {"type": "object", "properties": members, "required": ["id", "type", "timestamp", "data"]}
    return {
        "summary": known.description,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in COMPONENTS["parameters"]],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {name: {"$ref": f"#/components/responses/{name}"} for name in COMPONENTS["responses"]},
    }
