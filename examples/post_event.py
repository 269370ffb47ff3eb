"""How an HMS service posts one event.

    GATEWAY_URL=http://127.0.0.1:8080 GATEWAY_API_KEY=whk_... python -m examples.post_event

A 202 means: the event is on disk and will be delivered. On anything else, or on silence, post again with the same
idempotency key; it is stored once. (`webhook_gateway.client` does the posting again for you.)
"""

import os
from typing import Any

import httpx


def open_gateway() -> httpx.Client:
    headers = {"Authorization": f"Bearer {os.environ['GATEWAY_API_KEY']}"}
    return httpx.Client(base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080"), headers=headers)


def post_event(
    gateway: httpx.Client,
    type: str,
    data: dict[str, Any],
    subject: str,
    ordering_key: str,
    idempotency_key: str,
    to: list[str] | None = None,
) -> str:
    """Returns the event's id. Raises httpx.HTTPError if the gateway is unavailable or refuses the event.

    `to` names the subscribers that alone get it, by their `external_id`; without it, whoever wants it does.
    """
    event = {"type": type, "data": data, "subject": subject, "ordering_key": ordering_key}
    addressed = {} if to is None else {"to": to}
    answer = gateway.post("/v1/events", json={**event, **addressed, "idempotency_key": idempotency_key})
    answer.raise_for_status()
    return str(answer.json()["id"])


if __name__ == "__main__":
    order = {"order_id": "ord_1", "patient_id": "pat_1", "ordering_practitioner_id": "prac_1", "priority": "stat"}
    with open_gateway() as gateway:
        print(post_event(gateway, "lab_order.placed", order, "patient:pat_1", "lab_order:ord_1", "ord_1-placed"))
