"""What requests and answers look like. Bodies are strict: an unknown member or a number in quotes is refused."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from webhook_gateway.rules import ids
from webhook_gateway.rules.matching import LONGEST_NAME
from webhook_gateway.rules.model import DEFAULT_SCHEDULE, DeliveryState, EndpointState, Ordering, Signing
from webhook_gateway.rules.scopes import Role, Scope

_SUFFIX = "01h455vb4pex5vsknk084sn02q"


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
            "examples": [f"{self._prefix}_{_SUFFIX}"],
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

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _written_time(value: object) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise PydanticCustomError("time", "Give an RFC 3339 time with its offset, as in 2026-11-24T09:30:00Z")


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:  # an offset at the edge of the calendar
        return value.replace(tzinfo=UTC)


Time = Annotated[AwareDatetime, BeforeValidator(_written_time), AfterValidator(_in_utc)]
"""RFC 3339 with an offset."""


def _as_json_holds_it(value: Any, depth: int = 0) -> Any:
    """
    Raises:
        PydanticCustomError: a number or text that no JSON in the database can hold, or nesting without sense.
    """
    if depth > 64:
        raise PydanticCustomError("depth", "Nest at most 64 levels deep")
    match value:
        case str():
            if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
                raise PydanticCustomError("text", "Remove the characters U+0000 and lone surrogates")
        case float():
            if not math.isfinite(value):
                raise PydanticCustomError("number", "Give a finite number")
        case dict():
            for name, member in value.items():
                _as_json_holds_it(name, depth)
                _as_json_holds_it(member, depth + 1)
        case list():
            for item in value:
                _as_json_holds_it(item, depth + 1)
        case _:
            pass
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_as_json_holds_it)]

Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$",
        description="Printable text that neither begins nor ends with a space.",
    ),
]
Description = Annotated[str, Field(max_length=1_000, pattern=r"^[^\x00]*$", description="For people.")]
EventTypeName = Annotated[
    str,
    Field(
        max_length=LONGEST_NAME,
        pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$",
        description="Words joined by dots.",
        examples=["lab_result.final"],
    ),
]
EventTypePattern = Annotated[
    str,
    Field(
        max_length=LONGEST_NAME,
        pattern=r"^(\*|[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*(\.\*)?)$",
        description="A name, a prefix (`lab_result.*`), or `*` for every type but the gateway's own.",
        examples=["lab_result.*"],
    ),
]
HeaderName = Annotated[
    str,
    Field(
        max_length=100,
        pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
        description="A field name (RFC 9110) that HTTP or the gateway doesn't need for itself.",
    ),
]
HeaderValue = Annotated[
    str,
    Field(max_length=2_000, pattern=r"^([\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?)?$", description="Printable ASCII."),
]
Url = Annotated[
    str,
    Field(
        max_length=2_048,
        description="Where events are POSTed: https, a public host, port 443 or 8443 unless an operator allows more.",
        examples=["https://partner.example.com/webhooks"],
    ),
]
SigningSecret = Annotated[
    str,
    Field(
        pattern=r"^whsec_[A-Za-z0-9+/]{32,86}={0,2}$",
        description="`whsec_` and base64 of 24 to 64 bytes (Standard Webhooks).",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw3ZQ3u7Yt3zI="],
    ),
]
PublicKey = Annotated[
    str,
    Field(
        description="With signing `ed25519`: `whpk_` and base64 of the public key (Standard Webhooks).",
        examples=["whpk_PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="],
    ),
]
Slots = Annotated[int, Field(strict=True, ge=1, le=100, description="Requests in flight at once.")]
Rate = Annotated[
    float,
    Field(strict=True, gt=0.001, le=10_000, allow_inf_nan=False, description="Requests a second; null: no limit."),
]
Deadline = Annotated[
    float, Field(strict=True, ge=1, le=60, allow_inf_nan=False, description="Seconds for one request in all.")
]
Delay = Annotated[float, Field(strict=True, ge=1, le=100_800, allow_inf_nan=False)]
Schedule = Annotated[
    list[Delay],
    Field(max_length=20, description="Seconds between attempts. One attempt more than delays; null: ten in 72 hours."),
]
EventTypes = Annotated[list[EventTypePattern], Field(min_length=1, max_length=100, description="What it wants.")]
Headers = Annotated[
    dict[HeaderName, HeaderValue],
    Field(max_length=20, description="Sent with every request. Encrypted at rest; values are never shown again."),
]
Cursor = Annotated[
    str, Field(max_length=64, pattern=r"^[A-Za-z0-9_-]*$", description="The `next_cursor` of the page before.")
]
NextCursor = Annotated[str | None, Field(description="Where the next page begins; null on the last one.")]


def _unchanged(alias: str | None = None) -> Any:
    """A member of a change that may be left out, but not be null."""

    def without_default(schema: dict[str, Any]) -> None:
        schema.pop("default", None)

    return Field(default=None, alias=alias, json_schema_extra=without_default)


def _example(*examples: dict[str, Any]) -> dict[str, Any]:
    return {"examples": list(examples)}


class Body(BaseModel):
    """What somebody sends."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Shown(BaseModel):
    """What is answered."""

    model_config = ConfigDict(populate_by_name=True)


class Paging(Body):
    """How lists are asked for."""

    cursor: Cursor | None = None
    limit: int = Field(50, ge=1, le=200, description="Items on a page.")


# Problems


class Fault(Shown):
    """One place that is wrong: `pointer` (JSON Pointer) into the body, or the name of a `parameter`."""

    pointer: str | None = None
    parameter: str | None = None
    rule: str
    remedy: str


class Problem(Shown):
    """RFC 9457 problem details."""

    type: str = Field(description="`urn:problem:webhook-gateway:` and a name to tell problems apart by.")
    title: str
    status: int
    detail: str = Field(description="What to do.")
    request_id: str = Field(description="What to tell an operator; also in the header X-Request-Id.")
    errors: list[Fault] | None = None


# Subscribers

_TIMES = {"created_at": "2026-11-23T08:00:00Z", "updated_at": "2026-11-23T08:00:00Z"}
_SUBSCRIBER = {"name": "Northside Laboratory", "description": "Receives orders, sends results"}


class NewSubscriber(Body):
    """A partner organisation to be."""

    model_config = ConfigDict(json_schema_extra=_example(_SUBSCRIBER))

    name: Name
    description: Description = ""


class SubscriberChanges(Body):
    """What is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra=_example({"description": "Now also pathology"}))

    name: Name = _unchanged()
    description: Description = _unchanged()


class Subscriber(Shown):
    """A partner organisation."""

    model_config = ConfigDict(json_schema_extra=_example({"id": f"sub_{_SUFFIX}", **_SUBSCRIBER, **_TIMES}))

    id: SubscriberId
    name: str
    description: str
    created_at: datetime
    updated_at: datetime


class SubscriberPage(Shown):
    """Subscribers, newest first."""

    items: list[Subscriber]
    next_cursor: NextCursor = None


# Endpoints


class Maintenance(Body):
    """No attempt begins in between; deliveries wait."""

    model_config = ConfigDict(
        json_schema_extra=_example({"from": "2026-11-28T22:00:00Z", "until": "2026-11-29T02:00:00Z"})
    )

    from_: Time = Field(alias="from")
    until: Time

    @model_validator(mode="after")
    def _in_order(self) -> Maintenance:
        if self.until <= self.from_:
            raise PydanticCustomError("order", "Let `until` be later than `from`")
        return self


_ENDPOINT: dict[str, Any] = {
    "subscriber_id": f"sub_{_SUFFIX}",
    "url": "https://lab.example.com/webhooks",
    "event_types": ["lab_order.*"],
    "description": "Orders to the laboratory system",
    "ordering": "relaxed",
    "slots": 10,
    "rate": None,
    "deadline": 15.0,
    "schedule": None,
    "maintenance": None,
}
_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw3ZQ3u7Yt3zI="  # noqa: S105 - an example


Pem = Annotated[str, Field(min_length=1, max_length=100_000, pattern=r"^[\x20-\x7e\t\r\n]*$")]
Credential = Annotated[str, Field(min_length=1, max_length=4_000, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Tls(Body):
    """TLS of the endpoint's own, as PEM. Encrypted at rest; the private key is never shown again."""

    model_config = ConfigDict(json_schema_extra=_example({"ca": "-----BEGIN CERTIFICATE-----\nMIIB…"}))

    ca: Pem | None = Field(None, description="Only certificates that these CAs have issued are trusted.")
    certificate: Pem | None = Field(None, description="Shown to the partner (mTLS), with those up to its CA.")
    key: Pem | None = Field(None, description="The certificate's private key, without a passphrase.")

    @model_validator(mode="after")
    def _something(self) -> Tls:
        if self.ca is self.certificate is self.key is None:
            raise PydanticCustomError("empty", "Give `ca`, or `certificate` and `key`, or all three")
        return self


class BasicAuthorization(Body):
    """User name and password (RFC 7617)."""

    kind: Literal["basic"]
    username: Annotated[Credential, Field(pattern=r"^[^:\x00-\x1f\x7f]*$")]
    password: Credential


class BearerAuthorization(Body):
    """A token that the partner gave out (RFC 6750)."""

    kind: Literal["bearer"]
    token: Annotated[str, Field(max_length=4_000, pattern=r"^[A-Za-z0-9._~+/-]+=*$")]


class OAuth2Authorization(Body):
    """A token for each while, had with the client's credentials (RFC 6749, section 4.4)."""

    kind: Literal["oauth2"]
    token_url: Url
    client_id: Credential
    client_secret: Credential
    scope: Credential | None = None
    audience: Credential | None = None
    secret_in: Literal["header", "body"] = Field("header", description="Where the token server wants the secret.")
    own_tls: bool = Field(False, description="Use the endpoint's `tls` for the token server, too.")


Authorization = Annotated[
    BasicAuthorization | BearerAuthorization | OAuth2Authorization,
    Field(
        discriminator="kind",
        description="What the `Authorization` header is made of. Encrypted at rest; its secrets are never shown again.",
    ),
]


class NewEndpoint(Body):
    """A URL to be, and what it wants."""

    model_config = ConfigDict(json_schema_extra=_example({**_ENDPOINT, "headers": {"X-Api-Key": "a value of theirs"}}))

    subscriber_id: SubscriberId
    url: Url
    event_types: EventTypes
    description: Description = ""
    headers: Headers = Field(default_factory=dict)
    ordering: Ordering = Field(Ordering.RELAXED, description="What it is promised for events of one ordering key.")
    slots: Slots = 10
    rate: Rate | None = None
    deadline: Deadline = 15.0
    schedule: Schedule | None = None
    maintenance: Maintenance | None = None
    secret: SigningSecret | None = Field(None, description="Their own signing secret; one is made where none is given.")
    signing: Signing = Field(
        Signing.HMAC, description="`ed25519`: only the gateway can sign; the partner gets a public key and no secret."
    )
    tls: Tls | None = None
    authorization: Authorization | None = None


class EndpointChanges(Body):
    """What is left out stays as it is; `null` goes back to the default, where there is one."""

    model_config = ConfigDict(json_schema_extra=_example({"slots": 4, "rate": 20.0}))

    url: Url = _unchanged()
    event_types: EventTypes = _unchanged()
    description: Description = _unchanged()
    headers: Headers | None = Field(None, description="Takes the place of all custom headers.")
    ordering: Ordering = _unchanged()
    slots: Slots = _unchanged()
    rate: Rate | None = None
    deadline: Deadline = _unchanged()
    schedule: Schedule | None = None
    maintenance: Maintenance | None = None
    tls: Tls | None = Field(None, description="Takes the place of all TLS settings; null: the system's CAs.")
    authorization: Authorization | None = None


class CertificateFacts(Shown):
    """A certificate, told from others."""

    subject: str
    expires_at: datetime
    sha256: str


class ShownTls(Shown):
    """TLS of the endpoint's own. An empty `ca` means the system's CAs."""

    ca: list[CertificateFacts]
    certificate: CertificateFacts | None


class ShownAuthorization(Shown):
    """What the `Authorization` header is made of, but for its secrets."""

    kind: Literal["basic", "bearer", "oauth2"]
    username: str | None = None
    token_url: str | None = None
    client_id: str | None = None
    scope: str | None = None
    audience: str | None = None
    secret_in: str | None = None
    own_tls: bool | None = None


class SecretTimes(Shown):
    """A live signing secret, but for the secret."""

    created_at: datetime
    expires_at: datetime | None = Field(description="When it stops signing, after a rotation.")


class Breaker(StrEnum):
    """`open`: left alone for a while; `half_open`: one request may probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class EndpointHealth(Shown):
    """What recent attempts say."""

    breaker: Breaker = Breaker.CLOSED
    failures_in_a_row: int = 0
    failing_since: datetime | None = None
    open_until: datetime | None = None
    held_until: datetime | None = Field(None, description="The partner asked for silence until then (Retry-After).")


_SHOWN_ENDPOINT: dict[str, Any] = {
    "id": f"ep_{_SUFFIX}",
    **_ENDPOINT,
    "schedule": list(DEFAULT_SCHEDULE),
    "header_names": ["X-Api-Key"],
    "signing": "hmac",
    "tls": None,
    "authorization": None,
    "state": "enabled",
    "state_reason": None,
    "state_changed_at": "2026-11-23T08:00:00Z",
    "revision": 1,
    "secrets": [{"created_at": "2026-11-23T08:00:00Z", "expires_at": None}],
    "health": {"breaker": "closed", "failures_in_a_row": 0},
    **_TIMES,
}


class Endpoint(Shown):
    """A partner's URL, its limits, its state and its health."""

    model_config = ConfigDict(json_schema_extra=_example(_SHOWN_ENDPOINT))

    id: EndpointId
    subscriber_id: SubscriberId
    url: str
    event_types: list[str]
    description: str
    header_names: list[str] = Field(description="Names of the custom headers.")
    ordering: Ordering
    slots: int
    rate: float | None
    deadline: float
    schedule: list[float]
    maintenance: Maintenance | None
    signing: Signing
    tls: ShownTls | None
    authorization: ShownAuthorization | None
    state: EndpointState
    state_reason: str | None
    state_changed_at: datetime
    revision: int
    secrets: list[SecretTimes]
    health: EndpointHealth
    created_at: datetime
    updated_at: datetime


class CreatedEndpoint(Endpoint):
    """With its signing secret, which is never shown again, or its public key."""

    model_config = ConfigDict(json_schema_extra=_example({**_SHOWN_ENDPOINT, "secret": _SECRET, "public_key": None}))

    secret: str | None
    public_key: PublicKey | None


class EndpointPage(Shown):
    """Endpoints, newest first."""

    items: list[Endpoint]
    next_cursor: NextCursor = None


class EndpointQuery(Paging):
    """Which endpoints."""

    subscriber_id: SubscriberId | None = None
    state: EndpointState | None = None


class Rotation(Body):
    """A new signing secret. The old ones sign, too, until the overlap ends, so that no event is refused meanwhile."""

    model_config = ConfigDict(json_schema_extra=_example({"overlap_seconds": 86_400}))

    overlap_seconds: int = Field(86_400, strict=True, ge=0, le=604_800)
    secret: SigningSecret | None = Field(None, description="Their own; one is made where none is given.")


class RotatedSecret(Shown):
    """The new secret, which is never shown again."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {"secret": _SECRET, "public_key": None, "previous_expire_at": "2026-11-24T08:00:00Z"}
        )
    )

    secret: str | None
    public_key: PublicKey | None
    previous_expire_at: datetime


class PublicKeys(Shown):
    """A JSON Web Key Set."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {
                "keys": [
                    {
                        "kty": "OKP",
                        "crv": "Ed25519",
                        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                        "use": "sig",
                        "alg": "EdDSA",
                        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
                    }
                ]
            }
        )
    )

    keys: list[dict[str, str]]


class TestSend(Body):
    """What to send: an event type's example, or `gateway.test`."""

    model_config = ConfigDict(json_schema_extra=_example({"event_type": "lab_result.final"}))

    event_type: EventTypeName = "gateway.test"


class QueuedDelivery(Shown):
    """A delivery that is on its way."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {"id": f"dlv_{_SUFFIX}", "event_id": f"evt_{_SUFFIX}", "endpoint_id": f"ep_{_SUFFIX}"}
        )
    )

    id: DeliveryId
    event_id: EventId
    endpoint_id: EndpointId


_HELD_KEY = {
    "ordering_key": "-4235713561732571313",
    "delivery_id": f"dlv_{_SUFFIX}",
    "event_id": f"evt_{_SUFFIX}",
    "held_at": "2026-11-23T08:00:00Z",
    "waiting": 3,
}


class HeldKey(Shown):
    """An ordering key of a strict endpoint that waits, since a delivery of it is dead."""

    model_config = ConfigDict(json_schema_extra=_example(_HELD_KEY))

    ordering_key: str = Field(description="The key's 64-bit hash: the key itself is not kept.")
    delivery_id: DeliveryId = Field(description="The dead delivery.")
    event_id: EventId
    held_at: datetime
    waiting: int = Field(description="Deliveries that wait behind it.")


class HeldKeyPage(Shown):
    """Held ordering keys."""

    items: list[HeldKey]
    next_cursor: NextCursor = None


# Event types


class Source(StrEnum):
    """Who an event type comes from."""

    CATALOGUE = "catalogue"
    GATEWAY = "gateway"
    TENANT = "tenant"


_EVENT_TYPE: dict[str, Any] = {
    "name": "dialysis.session_ended",
    "description": "A dialysis session was documented as ended",
    "ordering_key": "patient:{patient_id}",
    "schema": {
        "type": "object",
        "properties": {"patient_id": {"type": "string", "x-phi": "pseudonym"}, "minutes": {"type": "integer"}},
        "required": ["patient_id"],
    },
    "example": {"patient_id": "pat_7c1e9a52", "minutes": 240},
}
OrderingKeyTemplate = Annotated[
    str,
    Field(
        max_length=256,
        pattern=r"^[^{}\x00-\x1f\x7f]*(\{[A-Za-z0-9_]+\}[^{}\x00-\x1f\x7f]*)+$",
        description="How the ordering key is made from the data.",
        examples=["patient:{patient_id}"],
    ),
]


class NewEventType(Body):
    """An event type of one's own."""

    model_config = ConfigDict(json_schema_extra=_example(_EVENT_TYPE))

    name: EventTypeName
    description: Description = ""
    schema_: JsonObject = Field(alias="schema", description="JSON Schema 2020-12 of `data`. Refers to nothing outside.")
    example: JsonObject = Field(description="Data that fits the schema, with nobody's real values.")
    ordering_key: OrderingKeyTemplate | None = None


class EventTypeChanges(Body):
    """What is left out stays as it is. Events that were accepted before are not judged again."""

    model_config = ConfigDict(json_schema_extra=_example({"description": "A dialysis session has ended"}))

    description: Description = _unchanged()
    schema_: JsonObject = _unchanged(alias="schema")
    example: JsonObject = _unchanged()
    ordering_key: OrderingKeyTemplate | None = None


class EventTypeSummary(Shown):
    """An event type, but for its schema and example."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {name: _EVENT_TYPE[name] for name in ("name", "description", "ordering_key")} | {"source": "tenant"}
        )
    )

    name: str
    description: str
    ordering_key: str | None
    source: Source


class EventType(EventTypeSummary):
    """What may happen, and what its data looks like."""

    model_config = ConfigDict(json_schema_extra=_example({**_EVENT_TYPE, "source": "tenant"}))

    schema_: dict[str, Any] = Field(alias="schema")
    example: dict[str, Any]


class EventTypeList(Shown):
    """Every event type, by name."""

    items: list[EventTypeSummary]


# Deliveries


class WaitingFor(StrEnum):
    """Why a pending delivery has no time."""

    ORDERING_KEY = "ordering_key"
    ENDPOINT_PAUSED = "endpoint_paused"
    ENDPOINT_DISABLED = "endpoint_disabled"
    FAN_OUT = "fan_out"


_DELIVERY: dict[str, Any] = {
    "id": f"dlv_{_SUFFIX}",
    "event_id": f"evt_{_SUFFIX}",
    "type": "lab_result.final",
    "endpoint_id": f"ep_{_SUFFIX}",
    "state": "pending",
    "state_reason": None,
    "reason": None,
    "attempt": 2,
    "next_attempt_at": "2026-11-23T08:01:07Z",
    "waiting_for": None,
    "created_at": "2026-11-23T08:00:00Z",
    "finished_at": None,
}


class Delivery(Shown):
    """One event on its way to one endpoint."""

    model_config = ConfigDict(json_schema_extra=_example(_DELIVERY))

    id: DeliveryId
    event_id: EventId
    type: str
    endpoint_id: EndpointId
    state: DeliveryState
    state_reason: str | None = Field(description="Why it is dead or cancelled.")
    reason: str | None = Field(description="`replay` or `test`; null for the first delivery of an event.")
    attempt: int = Field(description="Attempts so far.")
    next_attempt_at: datetime | None = Field(validation_alias="due_at")
    waiting_for: WaitingFor | None
    created_at: datetime | None
    finished_at: datetime | None


class Attempt(Shown):
    """One HTTP request. `phase` says how far it got: from `sent` on, the partner may have the event."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {
                "id": f"att_{_SUFFIX}",
                "attempt": 1,
                "started_at": "2026-11-23T08:00:00Z",
                "duration": 0.182,
                "phase": "answered",
                "outcome": "rejected",
                "status": 503,
                "detail": None,
                "tls_version": "TLSv1.3",
                "response_length": 19,
                "response_type": "text/plain",
                "response_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            }
        )
    )

    id: AttemptId
    attempt: int
    started_at: datetime
    duration: float = Field(description="Seconds.")
    phase: str
    outcome: str
    status: int | None
    detail: str | None
    tls_version: str | None
    response_length: int | None
    response_type: str | None
    response_sha256: str | None


class KeptResponse(Shown):
    """What is kept of a partner's answer to one attempt."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {
                "id": f"att_{_SUFFIX}",
                "attempt": 1,
                "status": 422,
                "response_type": "text/plain",
                "excerpt": "no such lab",
            }
        )
    )

    id: AttemptId
    attempt: int
    status: int | None
    response_type: str | None
    excerpt: str | None = Field(description="Bytes that are no UTF-8 are replaced; null: it can't be opened.")


class KeptResponses(Shown):
    """First attempt first. Empty where the gateway keeps no answers, or partners gave none."""

    items: list[KeptResponse]


class DeliveryDetail(Delivery):
    """With its attempts, first one first."""

    attempts: list[Attempt]


class DeliveryPage(Shown):
    """Deliveries, newest first."""

    items: list[Delivery]
    next_cursor: NextCursor = None


class DeliveryQuery(Paging):
    """Which deliveries. `since` and `until` bound when they were made."""

    endpoint_id: EndpointId | None = None
    event_id: EventId | None = None
    type: EventTypeName | None = None
    state: DeliveryState | None = None
    since: Time | None = None
    until: Time | None = None


# Replays


class NewReplay(Body):
    """Which finished deliveries to send again."""

    model_config = ConfigDict(
        json_schema_extra=_example({"endpoint_id": f"ep_{_SUFFIX}", "state": "dead", "since": "2026-11-22T00:00:00Z"})
    )

    endpoint_id: EndpointId | None = None
    type: EventTypeName | None = None
    state: Literal["dead", "cancelled", "delivered"] = "dead"
    since: Time | None = None
    until: Time | None = None


class ReplayState(StrEnum):
    """Where a job is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class Replay(Shown):
    """A job that sends many deliveries again. Those to endpoints that are deleted or disabled are left out."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {
                "id": f"job_{_SUFFIX}",
                "state": "running",
                "endpoint_id": f"ep_{_SUFFIX}",
                "type": None,
                "delivery_state": "dead",
                "since": "2026-11-22T00:00:00Z",
                "until": None,
                "total": 1_204,
                "done": 500,
                "created_at": "2026-11-23T08:00:00Z",
                "finished_at": None,
            }
        )
    )

    id: JobId
    state: ReplayState
    endpoint_id: EndpointId | None
    type: str | None
    delivery_state: str
    since: datetime | None
    until: datetime | None
    total: int | None = Field(description="How many matched when it was made.")
    done: int = Field(description="How many are queued again.")
    created_at: datetime
    finished_at: datetime | None


class ReplayPage(Shown):
    """Jobs, newest first."""

    items: list[Replay]
    next_cursor: NextCursor = None


# Events


_EVENT: dict[str, Any] = {
    "id": f"evt_{_SUFFIX}",
    "type": "lab_result.final",
    "timestamp": "2026-11-23T07:59:59Z",
    "accepted_at": "2026-11-23T08:00:00Z",
    "size": 812,
}


class Event(Shown):
    """An accepted event, but for its body."""

    model_config = ConfigDict(json_schema_extra=_example(_EVENT))

    id: EventId
    type: str
    timestamp: datetime = Field(validation_alias="occurred_at")
    accepted_at: datetime
    size: int = Field(description="Bytes of the body that partners get.")


class EventDetail(Event):
    """With what became of it."""

    model_config = ConfigDict(
        json_schema_extra=_example({**_EVENT, "fanout": "done", "matched": 1, "deliveries": [_DELIVERY]})
    )

    fanout: Literal["pending", "done"] = Field(description="Whether its deliveries have been made.")
    matched: int = Field(description="Endpoints that wanted it.")
    deliveries: list[Delivery] = Field(description="The newest 200, replays included.")


class EventPage(Shown):
    """Events, newest first."""

    items: list[Event]
    next_cursor: NextCursor = None


class EventQuery(Paging):
    """Which events. `since` and `until` bound when they were accepted."""

    type: EventTypeName | None = None
    since: Time | None = None
    until: Time | None = None


class Payload(Shown):
    """The body that partners get."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {
                "id": f"evt_{_SUFFIX}",
                "type": "staff_shift.assigned",
                "timestamp": "2026-11-23T07:59:59.000Z",
                "data": {"staff_id": "st_19"},
            }
        )
    )

    id: str
    type: str
    timestamp: str
    subject: str | None = None
    data: Any


# Keys


_KEY: dict[str, Any] = {
    "name": "Laboratory information system",
    "scopes": ["events:write"],
    "subscriber_id": None,
    "event_types": ["lab_result.*"],
    "networks": ["10.20.0.0/16"],
    "expires_at": None,
}
Network = Annotated[str, Field(max_length=49, description="A network in CIDR notation.", examples=["10.20.0.0/16"])]


class NewKey(Body):
    """An API key to be: with a `role` or with `scopes`, and as narrow as you can."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {"name": "Laboratory information system", "role": "producer", "event_types": ["lab_result.*"]}
        )
    )

    name: Name
    role: Role | None = Field(None, description="A named set of scopes.")
    scopes: list[Scope] | None = Field(None, min_length=1, max_length=len(Scope))
    subscriber_id: SubscriberId | None = Field(
        None, description="The only subscriber whose things it sees and changes."
    )
    event_types: list[EventTypePattern] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="The only event types that it may post; for a subscriber's key, that its endpoints may want.",
    )
    networks: list[Network] | None = Field(
        None, min_length=1, max_length=50, description="The only networks that it may be used from."
    )
    expires_at: Time | None = None

    @model_validator(mode="after")
    def _either(self) -> NewKey:
        if (self.role is None) == (self.scopes is None):
            raise PydanticCustomError("role_or_scopes", "Give either a role or scopes")
        return self


class Key(Shown):
    """An API key, but for the key itself."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {
                "id": f"key_{_SUFFIX}",
                "prefix": "whk_3kTMd09a",
                **_KEY,
                "created_at": "2026-11-23T08:00:00Z",
                "last_used_at": "2026-11-23T08:30:00Z",
                "revoked_at": None,
            }
        )
    )

    id: KeyId
    name: str
    prefix: str = Field(description="How the key begins.")
    scopes: list[str]
    subscriber_id: SubscriberId | None
    event_types: list[str] | None
    networks: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None


class CreatedKey(Key):
    """With the key, which is never shown again."""

    key: str


class KeyPage(Shown):
    """Keys, newest first."""

    items: list[Key]
    next_cursor: NextCursor = None


# Audit


class AuditEntry(Shown):
    """Who changed what. Each entry's hash covers the one before it."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {
                "sequence": 17,
                "at": "2026-11-23T08:00:00Z",
                "actor": f"key_{_SUFFIX}",
                "source": "10.20.1.4",
                "action": "endpoint.pause",
                "target": f"ep_{_SUFFIX}",
                "before": {"state": "enabled"},
                "after": {"state": "paused"},
                "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            }
        )
    )

    sequence: int
    at: datetime
    actor: str = Field(description="A key's id, or `cli`.")
    source: str = Field(description="The client's address.")
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    hash: str


class AuditPage(Shown):
    """Entries, newest first."""

    items: list[AuditEntry]
    next_cursor: NextCursor = None


class AuditQuery(Paging):
    """Which entries."""

    target: str | None = Field(None, max_length=200, pattern=r"^[^\x00]*$", description="What was changed.")
    actor: str | None = Field(None, max_length=200, pattern=r"^[^\x00]*$", description="Who changed it.")


class AuditHead(Shown):
    """The end of the audit log at a moment, signed.

    The signature is Ed25519 over the other members as JSON with sorted members, no white space and only ASCII.
    """

    model_config = ConfigDict(
        json_schema_extra=_example(
            {
                "tenant": f"ten_{_SUFFIX}",
                "sequence": 17,
                "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "at": "2026-11-23T08:00:00.000000+00:00",
                "key": "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
                "signature": (
                    "5VZDAMNgrHKQhuLMgG6CioSHfx645dl02HPgZSJJAVVfuIIVkKM7rMYeOXAc+bRr0lv18FlbviRlUUFDjnoQCw=="
                ),
            }
        )
    )

    tenant: str
    sequence: int = Field(description="The last entry's; 0 where there is none.")
    hash: str = Field(description="The last entry's, in hexadecimal.")
    at: str = Field(description="When it was signed: a text, since the signature covers it as it is written.")
    key: str = Field(description="The public key: `whpk_` and base64. Note it once, and accept no other.")
    signature: str = Field(description="Base64.")


class AuditVerification(Shown):
    """Whether the chain of entries is whole. Note the last hash elsewhere: it shows that none was cut off the end."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {
                "intact": True,
                "entries": 17,
                "broken_at": None,
                "last_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            }
        )
    )

    intact: bool
    entries: int
    broken_at: int | None = Field(description="The first sequence that doesn't fit.")
    last_hash: str


# Stats


class EndpointBacklog(Shown):
    """What is open for one endpoint."""

    endpoint_id: EndpointId
    open: int
    sending: int
    waiting: int = Field(description="Deliveries that wait for an earlier one of their ordering key.")
    oldest_due_seconds: float | None = Field(description="How long ago the oldest one was due.")


class Stats(Shown):
    """How far behind the gateway is. Counts stop at a million."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {
                "outbox_waiting": 0,
                "open": 120,
                "pending": 90,
                "sending": 10,
                "waiting": 20,
                "oldest_due_seconds": 3.5,
                "dead_24h": 2,
                "unmatched_recent": 0,
                "endpoints": [
                    {
                        "endpoint_id": f"ep_{_SUFFIX}",
                        "open": 120,
                        "sending": 10,
                        "waiting": 20,
                        "oldest_due_seconds": 3.5,
                    }
                ],
            }
        )
    )

    outbox_waiting: int | None = Field(description="Accepted events not fanned out yet; null for a subscriber's key.")
    open: int
    pending: int
    sending: int
    waiting: int
    oldest_due_seconds: float | None
    dead_24h: int = Field(description="Deliveries of the last 24 hours that are dead.")
    unmatched_recent: int | None = Field(description="Of the last 200 events, those that no endpoint wanted.")
    endpoints: list[EndpointBacklog] = Field(description="The 50 with the largest backlog.")


class Condition(Shown):
    """How the process is."""

    model_config = ConfigDict(json_schema_extra=_example({"status": "ok"}))

    status: Literal["ok"]
