"""Partners' URLs, and what they want."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from webhook_gateway.rules.deadlines import LONGEST_DEADLINE
from webhook_gateway.rules.model import DEFAULT_SCHEDULE, EndpointState, Ordering, Signing

from .credentials import Authorization, Headers, ShownAuthorization, ShownTls, Tls
from .endpoint_lifecycle import EndpointHealth
from .event_types import JsonObject
from .shapes import Body, Paging, Shown, examples, unchanged
from .signing import SECRET, PublicKey, SecretTimes, SigningSecret
from .typed_ids import SUFFIX, EndpointId, SubscriberId
from .values import THIN, TIMES, CancelOpen, Content, Description, EventTypePattern, Name, ShownContent, Time, Url

EndpointName = Annotated[Name, Field(description="Its own among its subscriber's endpoints.")]

Slots = Annotated[int, Field(strict=True, ge=1, le=100, description="Requests in flight at once.")]

Rate = Annotated[
    float,
    Field(
        strict=True,
        gt=0.001,
        le=10_000,
        allow_inf_nan=False,
        description="Requests a second, spread over it; null: no limit.",
    ),
]

Deadline = Annotated[
    float,
    Field(strict=True, ge=1, le=LONGEST_DEADLINE, allow_inf_nan=False, description="Seconds for one request in all."),
]

Delay = Annotated[float, Field(strict=True, ge=1, le=100_800, allow_inf_nan=False)]

Schedule = Annotated[
    list[Delay],
    Field(max_length=20, description="Seconds between attempts. One attempt more than delays; null: ten in 72 hours."),
]

EventTypes = Annotated[
    list[EventTypePattern],
    Field(min_length=1, max_length=100, description="What it wants of what its subscriber may have; null: all of it."),
]

EventFilter = Annotated[
    JsonObject,
    Field(
        description="Which events of its types, by `data`; set by the hospital only. Members are AND, a list is OR."
        " Values, `prefix`, `suffix`, `anything-but`, `exists`, `numeric`, `equals-ignore-case`; `$or`.",
        examples=[{"payer_id": ["p_17", "p_18"], "amount": {"value": [{"numeric": [">=", 100]}]}}],
    ),
]


class Maintenance(Body):
    """No attempt begins in between; deliveries wait."""

    model_config = examples({"from": "2026-11-28T22:00:00Z", "until": "2026-11-29T02:00:00Z"})

    from_: Time = Field(alias="from")
    until: Time

    @model_validator(mode="after")
    def _in_order(self) -> Maintenance:
        if self.until <= self.from_:
            raise PydanticCustomError("order", "Let `until` be later than `from`")
        return self


_ENDPOINT: dict[str, Any] = {
    "subscriber_id": f"sub_{SUFFIX}",
    "name": "orders",
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


class UrlOfPartner(Body):
    """A URL to be, and what it wants."""

    url: Url
    name: EndpointName | None = None
    event_types: EventTypes | None = None
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
    content: Content | None = Field(None, description="Less than its subscriber may have; null: all of that.")
    filter: EventFilter | None = None


class NewEndpoint(UrlOfPartner):
    """A URL of a subscriber to be, and what it wants."""

    model_config = examples({**_ENDPOINT, "headers": {"X-Api-Key": "a value of theirs"}})

    subscriber_id: SubscriberId


class EndpointChanges(Body):
    """What is left out stays as it is; `null` goes back to the default, where there is one."""

    model_config = examples({"slots": 4, "rate": 20.0})

    url: Url = unchanged()
    name: EndpointName | None = None
    event_types: EventTypes | None = None
    cancel_open: CancelOpen = False
    description: Description = unchanged()
    headers: Headers | None = Field(None, description="Takes the place of all custom headers.")
    ordering: Ordering = unchanged()
    slots: Slots = unchanged()
    rate: Rate | None = None
    deadline: Deadline = unchanged()
    schedule: Schedule | None = None
    maintenance: Maintenance | None = None
    tls: Tls | None = Field(None, description="Takes the place of all TLS settings; null: the system's CAs.")
    authorization: Authorization | None = None
    content: Content | None = Field(None, description="Counts with the next attempt, also for what waits.")
    filter: EventFilter | None = Field(None, description="For events to come: open deliveries stay as they are.")


_SHOWN_ENDPOINT: dict[str, Any] = {
    "id": f"ep_{SUFFIX}",
    **_ENDPOINT,
    "effective_event_types": ["lab_order.*"],
    "content": None,
    "effective_content": THIN,
    "filter": None,
    "schedule": list(DEFAULT_SCHEDULE),
    "header_names": ["X-Api-Key"],
    "signing": "hmac",
    "tls": None,
    "authorization": None,
    "state": "enabled",
    "state_reason": None,
    "state_changed_by": None,
    "state_changed_at": "2026-11-23T08:00:00Z",
    "revision": 1,
    "secrets": [{"created_at": "2026-11-23T08:00:00Z", "expires_at": None}],
    "health": {"breaker": "closed", "failures_in_a_row": 0},
    **TIMES,
}


class Endpoint(Shown):
    """A partner's URL, its limits, its state and its health."""

    model_config = examples(_SHOWN_ENDPOINT)

    id: EndpointId
    subscriber_id: SubscriberId
    name: str | None
    url: str = Field(description="In lists, and for a key that may not change it, with `?…` instead of its query.")
    event_types: list[str] | None
    effective_event_types: list[str] = Field(description="What it gets: what its subscriber may have and it wants.")
    content: Content | None
    effective_content: ShownContent = Field(description="What it gets: what its subscriber may have, and no more.")
    filter: dict[str, Any] | str | None = Field(description="To a partner's key only what is about what it gets.")
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
    state_reason: str | None = Field(
        description="What was given when it was paused, or `by_hand`; why the gateway has disabled it."
    )
    state_changed_at: datetime
    state_changed_by: str | None = Field(
        description="With what, as in: the key `operations`; null: by the gateway. Not told to a partner's key."
    )
    revision: int
    secrets: list[SecretTimes]
    health: EndpointHealth
    created_at: datetime
    updated_at: datetime


class CreatedEndpoint(Endpoint):
    """With its signing secret, which is never shown again, or its public key."""

    model_config = examples({**_SHOWN_ENDPOINT, "secret": SECRET, "public_key": None})

    secret: str | None
    public_key: PublicKey | None


class FilterPreview(Body):
    """A filter to try, on the endpoint's types unless others are named."""

    model_config = examples({"filter": {"payer_id": ["p_17"]}, "event_types": ["insurance_claim.*"]})

    filter: EventFilter
    event_types: EventTypes | None = None


class TriedFilter(Shown):
    """How many of the latest events, back to ``since``, were read, and how many of these matched."""

    model_config = examples({"events": 1_000, "matched": 412, "bytes": 604_000, "since": "2026-11-23T08:00:00Z"})

    events: int
    matched: int
    bytes: int
    since: datetime | None


class EndpointQuery(Paging):
    """Which endpoints."""

    subscriber_id: SubscriberId | None = None
    state: EndpointState | None = None
