"""Partner organisations."""

from __future__ import annotations

from datetime import datetime

from .shapes import Body, Shown, examples, unchanged
from .typed_ids import SUFFIX, SubscriberId
from .values import TIMES, Description, Name

_SUBSCRIBER = {"name": "Northside Laboratory", "description": "Receives orders, sends results"}


class NewSubscriber(Body):
    """A partner organisation to be."""

    model_config = examples(_SUBSCRIBER)

    name: Name
    description: Description = ""


class SubscriberChanges(Body):
    """What is left out stays as it is."""

    model_config = examples({"description": "Now also pathology"})

    name: Name = unchanged()
    description: Description = unchanged()


class Subscriber(Shown):
    """A partner organisation."""

    model_config = examples({"id": f"sub_{SUFFIX}", **_SUBSCRIBER, **TIMES})

    id: SubscriberId
    name: str
    description: str
    created_at: datetime
    updated_at: datetime
