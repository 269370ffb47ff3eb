"""Ids, and how each kind of them looks outside."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from webhook_gateway.rules import ids

SUFFIX = "01h455vb4pex5vsknk084sn02q"
"""What ids end with in examples."""


class TypedId:
    """A UUID inside, ``ep_…`` outside."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: ids.render(self._prefix, value), return_schema=core_schema.str_schema(), when_used="json"
            ),
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "type": "string",
            "pattern": f"^{self._prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$",
            "examples": [f"{self._prefix}_{SUFFIX}"],
        }

    def _read(self, value: object) -> UUID:
        if isinstance(value, UUID):
            return value
        try:
            return ids.parse(self._prefix, str(value))
        except ids.NotAnId:
            raise PydanticCustomError("id", f"Give an id that begins with {self._prefix}_") from None


SubscriberId = Annotated[UUID, TypedId(ids.SUBSCRIBER)]
EndpointId = Annotated[UUID, TypedId(ids.ENDPOINT)]
EventId = Annotated[UUID, TypedId(ids.EVENT)]
DeliveryId = Annotated[UUID, TypedId(ids.DELIVERY)]
AttemptId = Annotated[UUID, TypedId(ids.ATTEMPT)]
KeyId = Annotated[UUID, TypedId(ids.KEY)]
JobId = Annotated[UUID, TypedId(ids.JOB)]
SessionId = Annotated[UUID, TypedId(ids.SESSION)]
