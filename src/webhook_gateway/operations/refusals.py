"""Why something is not done. A refusal is a value: it has a name, and says what to do about it.

The API answers it as a problem (`web/errors.py`), the command line ends with it (`cli/exits.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from webhook_gateway.rules.faults import Fault


class NotFound(Enum):
    """Nothing of that id is here, or the actor may not see it: that looks the same. The value says what it would be."""

    DELIVERY = "delivery"
    ENDPOINT = "endpoint"
    EVENT = "event"
    EVENT_TYPE = "event type"
    HELD_KEY = "held ordering key"
    KEY = "key"
    PORTAL_LINK = "portal link"
    REPLAY = "replay"
    SESSION = "session"
    SUBSCRIBER = "subscriber"


class Conflict(Enum):
    """The state of things forbids it. The value says what to do."""

    BODY_GONE = "The event's body is no longer kept, so it can't be sent again."
    DELIVERY_BEHIND = "An earlier delivery of its ordering key has to end first: try that one."
    DELIVERY_ENDED = "The delivery has ended already."
    DELIVERY_IN_OUTBOX = "The delivery has not left the outbox yet: ask again in a moment."
    DELIVERY_OPEN = "The delivery is still on its way: only one that is finished can be replayed."
    DELIVERY_SENDING = "The delivery is being sent just now. Look at it again when this attempt is over."
    ENDPOINT_DELETED = "The delivery's endpoint was deleted, so there is nowhere to send it."
    ENDPOINT_DISABLED = "The endpoint is disabled: resume it first."
    ENDPOINT_NAME_TAKEN = "Another endpoint of its subscriber has this name. Choose another, or use that endpoint."
    ENDPOINT_PAUSED = "The endpoint is paused: resume it first."
    EXTERNAL_ID_TAKEN = "Another subscriber has this external_id. Choose another one, or use that subscriber."
    EVENT_TYPE_CHANGED = "Somebody else has just changed this event type. Look at it, and change it again."
    EVENT_TYPE_EXISTS = "There is an event type of this name. Change that one, or choose another name."
    EVENT_TYPE_SHIPPED = "The product ships this event type: it can't be changed. Use it, or choose another name."
    NOT_PERMITTED = "The endpoint may not have events of this type any more: its subscriber's event_types say which."
    NOT_WANTED = "The endpoint's filter does not let it through, or was never asked about it."
    NOTHING_TO_PAUSE = "The endpoint is disabled, so nothing is attempted anyway. Resume it once it is fixed."
    OTHER_PLAN = "What would be changed is no longer what was planned: look at the new plan, then apply that."
    OWN_KEY = "A key can't revoke itself: use another key that has the scope admin."
    REPLAYED = "It was sent again already, as the delivery in its replayed_as: look at that one."
    REPLAY_ENDED = "The job has ended already."
    SUBSCRIBER_HAS_ENDPOINTS = (
        "The subscriber has endpoints: delete these first, or say `force`, which also cancels what waits for them."
    )
    SUBSCRIBER_NAME_TAKEN = "Another subscriber has this name. Choose another name, or use that subscriber."
    NO_TENANT = "There is no tenant of this name: --new-tenant makes one."
    TENANT_EXISTS = "There is a tenant of this name already: leave --new-tenant out."
    TOO_MANY_ENDPOINTS = "The subscriber has as many endpoints as a partner may make: delete one, or ask the hospital."
    TOO_MANY_REPLAYS = "As many of the subscriber's replays as may be are under way: wait for one, or cancel it."
    TOO_MANY_TO_COUNT = "More has ended than can be counted: ask for one endpoint, and for less by `since` and `until`."
    TOO_MANY_SECRETS = "The endpoint has as many live secrets as it can: wait, or rotate with overlap_seconds 0."
    WORKERS_TOO_OLD = (
        "A worker of the version before is still alive, which would send more than this allows. "
        "Finish the upgrade of the workers, then ask again; one that was killed counts for 15 minutes."
    )


@dataclass(frozen=True, slots=True)
class NotHeld:
    """Nobody can grant what they don't hold themselves: scopes, bounds or event types, by name."""

    beyond: tuple[str, ...]


class Exhausted(Enum):
    """A partner has used up what it may in a day. The value says what to do."""

    REPLAYS = "As many deliveries as a partner may send again in a day are: wait, ask for fewer, or ask the hospital."
    TESTS = "As many tests as a partner may send in a day are sent: wait until tomorrow (UTC), or ask the hospital."


@dataclass(frozen=True, slots=True)
class Invalid:
    """What was given breaks a rule, in these places."""

    faults: tuple[Fault, ...]


MOST_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class WouldCutOff:
    """So many open deliveries are of types that would not be permitted any more; counted up to `MOST_COUNTED`."""

    open: int

    def __str__(self) -> str:
        count = f"{self.open:,}" if self.open <= MOST_COUNTED else f"more than {MOST_COUNTED:,}"
        return f"It would cut off open deliveries, {count} of them: wait for them, or cancel them with cancel_open."


Refusal = NotFound | Conflict | Exhausted | NotHeld | Invalid | WouldCutOff
