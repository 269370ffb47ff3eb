"""Requests and answers: the bytes that are sent, and what the bytes mean that come back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from .values import Accepted, Endpoint, Event, Fault, GatewayUnavailable, Refused, Subscriber

BATCH = 1_000
"""The most events that one request may carry."""
BATCH_BYTES = 1_000_000
"""What one request may be long: less than the API's limit as it is shipped, of 1 MiB."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it is sent, each time the same bytes. ``repeatable``: done twice, it is as if done once."""

    method: str
    path: str
    body: bytes | None = field(default=None, repr=False)
    parameters: Mapping[str, str | int] = field(default_factory=dict, repr=False)
    repeatable: bool = True
    idempotency_key: str | None = field(default=None, repr=False)


def event_of(
    type: str,
    data: Mapping[str, Any],
    subject: str | None,
    ordering_key: str | None,
    timestamp: datetime | None,
    idempotency_key: str | None,
    to: Sequence[str] | None,
    patient: str | None,
) -> Event:
    key = {} if idempotency_key is None else {"idempotency_key": idempotency_key}
    about: dict[str, Any] = {"subject": subject, "ordering_key": ordering_key, "to": to, "patient": patient}
    return Event(type, data, timestamp=timestamp, **about, **key)


def post_one(event: Event) -> Call:
    return Call("POST", "/v1/events", write(_fields(event)), idempotency_key=event.idempotency_key)


def create_subscriber(name: str, description: str, event_types: Sequence[str], settings: Mapping[str, Any]) -> Call:
    content = {"name": name, "description": description, "event_types": list(event_types), **settings}
    return Call("POST", "/v1/subscribers", write(content), repeatable=False)


def create_endpoint(
    subscriber_id: str, url: str, event_types: Sequence[str] | None, settings: Mapping[str, Any]
) -> Call:
    wanted = {} if event_types is None else {"event_types": list(event_types)}
    content = {"subscriber_id": subscriber_id, "url": url, **wanted, **settings}
    return Call("POST", "/v1/endpoints", write(content), repeatable=False)


def _fields(event: Event) -> dict[str, Any]:
    fields = {
        "type": event.type,
        "data": event.data,
        "subject": event.subject,
        "ordering_key": event.ordering_key,
        "timestamp": event.timestamp.isoformat() if event.timestamp is not None else None,
        "idempotency_key": event.idempotency_key,
        "to": None if event.to is None else list(event.to),
        "patient": event.patient,
    }
    return {name: value for name, value in fields.items() if value is not None}


def write(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"an event's data can't hold a {type(value).__name__}: JSON has no such thing")


class Posting:
    """Many events on their way: in requests that are neither too many events nor too long, in their order.

    Iterating gives the next request; ask for its answer within `keeping`, and give it to `answered`.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self._parts = _parts(map(_written, events))
        self._halves: list[list[bytes]] = []
        self._part: list[bytes] = []
        self.results: list[Accepted | Refused] = []

    def __iter__(self) -> Iterator[Call]:
        for part in self._parts:
            self._halves = [part]
            while self._halves:
                self._part = self._halves.pop()
                yield Call("POST", "/v1/events/batch", b'{"events":[' + b",".join(self._part) + b"]}")

    def answered(self, response: httpx.Response) -> None:
        self.results += read_batch(response)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """What was answered before is not lost with an exception; what is too long is posted in halves."""
        try:
            yield
        except (Refused, GatewayUnavailable) as error:
            if not isinstance(error, Refused) or error.status != httpx.codes.REQUEST_ENTITY_TOO_LARGE:
                error.results = tuple(self.results)
                raise
            half = len(self._part) // 2
            if half:
                self._halves += [self._part[half:], self._part[:half]]
            else:
                self.results.append(error)


def _parts(events: Iterable[bytes]) -> Iterator[list[bytes]]:
    part, length = list[bytes](), 0
    for event in events:
        if part and (len(part) == BATCH or length + len(event) >= BATCH_BYTES):
            yield part
            part, length = [], 0
        part.append(event)
        length += len(event) + 1
    if part:
        yield part


def _written(event: Event) -> bytes:
    return write(_fields(event))


def read_accepted(response: httpx.Response) -> Accepted:
    return _accepted(response.json())


def read_batch(response: httpx.Response) -> list[Accepted | Refused]:
    results = sorted(response.json()["results"], key=lambda result: int(result["index"]))
    return [_accepted(result) if "id" in result else _refused(result) for result in results]


def read_subscriber(response: httpx.Response) -> Subscriber:
    found = response.json()
    return Subscriber(found["id"], found["name"])


def read_endpoint(response: httpx.Response) -> Endpoint:
    found = response.json()
    return Endpoint(found["id"], found["url"], found.get("secret"))


def _accepted(found: Mapping[str, Any]) -> Accepted:
    moment = datetime.fromisoformat(found["accepted_at"])
    return Accepted(found["id"], found["type"], moment, bool(found.get("duplicate", False)))


def _refused(result: Mapping[str, Any]) -> Refused:
    return refusal(int(result["status"]), result.get("error", {}))


def refusal(status: int, problem: Mapping[str, Any]) -> Refused:
    faults = [
        Fault(fault.get("pointer", fault.get("parameter", "")), fault.get("rule", ""), fault.get("remedy", ""))
        for fault in problem.get("errors", ())
    ]
    return Refused(status, str(problem.get("title", "Refused")), str(problem.get("detail") or ""), faults)


def problem(response: httpx.Response) -> Mapping[str, Any]:
    """The problem document, or nothing where something in between answered (its text could hold anything)."""
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
