"""What a hospital's services import to post events, and to set the gateway up.

    gateway = Gateway("https://webhooks.hospital.example", key="whk_…")
    accepted = gateway.post_event("lab_result.final", result, ordering_key=result["patient_id"])

What the gateway did not answer is asked again, with the same idempotency key, until the deadline: an event posted
twice is accepted once. Nothing that was posted stands in a log line or in an exception's text.

    Exception
    ├── GatewayUnavailable   no answer, or only "later", until the deadline: post the same event again, later
    └── Refused              the gateway has answered no, with its reasons: asking again would not help
"""

from .gateway import AsyncGateway, Gateway
from .values import Accepted, Endpoint, Event, Fault, GatewayUnavailable, Refused, Subscriber

__all__ = [
    "Accepted",
    "AsyncGateway",
    "Endpoint",
    "Event",
    "Fault",
    "Gateway",
    "GatewayUnavailable",
    "Refused",
    "Subscriber",
]
