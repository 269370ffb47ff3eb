"""What a hospital's services import to post events, and to set the gateway up.

    gateway = Gateway("https://webhooks.hospital.example", key="whk_…")
    accepted = gateway.post_event("lab_result.final", result, ordering_key=result["patient_id"])

What the gateway did not answer is asked again, with the same idempotency key, until the deadline: an event posted
twice is accepted once. Nothing that was posted stands in a log line or in an exception's text.

    Exception
    ├── GatewayUnavailable   no answer, or only "later", until the deadline: post the same event again, later
    └── Refused       the gateway has answered no, with its reasons: asking again would not help
"""

from __future__ import annotations

import json
import logging
import random
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from types import TracebackType
from typing import Any, Self

import httpx
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_before_delay

BATCH = 1_000
"""The most events that one request may carry."""
LONGEST_WAIT = 5.0
LONGEST_REQUEST = 10.0
CONNECT = 5.0

_log = logging.getLogger(__name__)


class GatewayUnavailable(Exception):
    """The gateway gave no answer in time. Whether an event was accepted is unknown: post it again with the same key.

    ``idempotency_key`` is the key of the event that was posted, ``None`` for anything else (a batch's events have
    their own). ``retry_after`` is how many seconds the gateway asked to be left alone, where it did.
    """

    def __init__(self, reason: str, idempotency_key: str | None, retry_after: float | None) -> None:
        super().__init__(f"the gateway is away: {reason}")
        self.idempotency_key = idempotency_key
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: the rule that it breaks, and what to do about it. Never the value.

    ``place`` is a JSON pointer into what was posted (RFC 6901), or the name of a parameter.
    """

    place: str
    rule: str
    remedy: str


class Refused(Exception):
    """The gateway answered no (RFC 9457). ``faults`` say what is wrong in the event, and where."""

    def __init__(self, status: int, title: str, detail: str = "", faults: Sequence[Fault] = ()) -> None:
        self.status, self.title, self.detail, self.faults = status, title, detail, tuple(faults)
        reasons = [detail, *(f"{fault.place or '/'} ({fault.rule}): {fault.remedy}" for fault in faults)]
        super().__init__(f"{status} {title}" + "".join(f"; {reason}" for reason in reasons if reason))


@dataclass(frozen=True, slots=True)
class Accepted:
    """The event is in the gateway's outbox and will not be lost. ``duplicate``: it was there before."""

    id: str
    type: str
    accepted_at: datetime
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Event:
    """What is posted. Posting the same value again is safe: it keeps its idempotency key, made here unless given.

    ``data`` must be what `json.dumps` can write. ``timestamp`` is when it happened, with its zone; without it, the
    gateway takes the time at which it accepts. What is about a patient is left out of the ``repr``.
    """

    type: str
    data: Mapping[str, Any] = field(repr=False)
    subject: str | None = field(default=None, repr=False, kw_only=True)
    ordering_key: str | None = field(default=None, repr=False, kw_only=True)
    timestamp: datetime | None = field(default=None, kw_only=True)
    idempotency_key: str = field(default_factory=lambda: uuid.uuid4().hex, kw_only=True)

    def __post_init__(self) -> None:
        if self.timestamp is not None and self.timestamp.tzinfo is None:
            raise ValueError("an event's timestamp needs a time zone, for example datetime.now(UTC)")


@dataclass(frozen=True, slots=True)
class Subscriber:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A partner's URL. ``secret`` is known only right after it was made: the partner needs it to verify."""

    id: str
    url: str
    secret: str | None = field(default=None, repr=False)


class Gateway:
    """Speaks to a gateway at ``url`` with an API key. ``deadline`` bounds a call, with all its retries, in seconds.

    Use it as a context manager, or `close` it; it may be shared by threads.
    """

    def __init__(self, url: str, key: str, *, deadline: float = 30.0) -> None:
        self._deadline = deadline
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=_headers(key))

    def post_event(
        self,
        type: str,
        data: Mapping[str, Any],
        *,
        subject: str | None = None,
        ordering_key: str | None = None,
        timestamp: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Accepted:
        """Posts one event, and returns when the gateway has stored it.

        Raises:
            Refused: the event, or the key, is not right; or the same idempotency key was used for another event.
            GatewayUnavailable: no answer until the deadline.
            ValueError: ``timestamp`` has no zone.
            TypeError: ``data`` holds what JSON can't.
        """
        event = _event(type, data, subject, ordering_key, timestamp, idempotency_key)
        return _read_accepted(self._send(_post_one(event)))

    def post_events(self, events: Iterable[Event]) -> list[Accepted | Refused]:
        """Posts many events, a thousand a request, and returns what became of each, in their order.

        Raises:
            Refused: a whole request is not right (the key has no leave, it is too long).
            GatewayUnavailable: no answer until the deadline. What came before may be accepted: post all of them again.
        """
        return [result for call in _post_many(events) for result in _read_batch(self._send(call))]

    def create_subscriber(self, name: str, description: str = "") -> Subscriber:
        return _read_subscriber(self._send(_create_subscriber(name, description)))

    def create_endpoint(self, subscriber_id: str, url: str, event_types: Sequence[str], **settings: Any) -> Endpoint:
        """Registers a partner's URL. ``settings`` are the API's other fields: schedule, ordering, secret …"""
        return _read_endpoint(self._send(_create_endpoint(subscriber_id, url, event_types, settings)))

    def get(self, path: str, **parameters: str | int) -> Any:
        """Reads anything else of the API, as JSON: ``gateway.get("/v1/deliveries", state="dead")``."""
        return self._send(_Call("GET", path, parameters=parameters)).json()

    def post(self, path: str, content: Mapping[str, Any] | None = None) -> Any:
        """Does anything else of the API: ``gateway.post("/v1/endpoints/ep_…/pause")``.

        Asked again only where the gateway can't have done it yet.
        """
        response = self._send(_Call("POST", path, _write(content or {}), repeatable=False))
        return response.json() if response.content else None

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: _Call) -> httpx.Response:
        until = time.monotonic() + self._deadline
        try:
            for attempt in Retrying(**_patience(self._deadline)):
                with attempt:
                    return _judge(call, _ask(self._http, call, until))
        except _Later as error:
            raise _away(error, call) from None
        raise AssertionError("unreachable: Retrying returns or raises")


class AsyncGateway:
    """The same as `Gateway`, for services that run on asyncio."""

    def __init__(self, url: str, key: str, *, deadline: float = 30.0) -> None:
        self._deadline = deadline
        self._http = httpx.AsyncClient(base_url=url.rstrip("/"), headers=_headers(key))

    async def post_event(
        self,
        type: str,
        data: Mapping[str, Any],
        *,
        subject: str | None = None,
        ordering_key: str | None = None,
        timestamp: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Accepted:
        """See `Gateway.post_event`."""
        event = _event(type, data, subject, ordering_key, timestamp, idempotency_key)
        return _read_accepted(await self._send(_post_one(event)))

    async def post_events(self, events: Iterable[Event]) -> list[Accepted | Refused]:
        """See `Gateway.post_events`."""
        return [result for call in _post_many(events) for result in _read_batch(await self._send(call))]

    async def create_subscriber(self, name: str, description: str = "") -> Subscriber:
        return _read_subscriber(await self._send(_create_subscriber(name, description)))

    async def create_endpoint(
        self, subscriber_id: str, url: str, event_types: Sequence[str], **settings: Any
    ) -> Endpoint:
        """See `Gateway.create_endpoint`."""
        return _read_endpoint(await self._send(_create_endpoint(subscriber_id, url, event_types, settings)))

    async def get(self, path: str, **parameters: str | int) -> Any:
        """See `Gateway.get`."""
        return (await self._send(_Call("GET", path, parameters=parameters))).json()

    async def post(self, path: str, content: Mapping[str, Any] | None = None) -> Any:
        """See `Gateway.post`."""
        response = await self._send(_Call("POST", path, _write(content or {}), repeatable=False))
        return response.json() if response.content else None

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, call: _Call) -> httpx.Response:
        until = time.monotonic() + self._deadline
        try:
            async for attempt in AsyncRetrying(**_patience(self._deadline)):
                with attempt:
                    return _judge(call, await _ask_async(self._http, call, until))
        except _Later as error:
            raise _away(error, call) from None
        raise AssertionError("unreachable: AsyncRetrying returns or raises")


@dataclass(frozen=True, slots=True)
class _Call:
    """One request as it is sent, each time the same bytes. ``repeatable``: done twice, it is as if done once."""

    method: str
    path: str
    body: bytes | None = field(default=None, repr=False)
    parameters: Mapping[str, str | int] = field(default_factory=dict, repr=False)
    repeatable: bool = True
    idempotency_key: str | None = field(default=None, repr=False)


class _Later(Exception):
    """No final answer yet. ``after`` is the Retry-After in seconds, ``again`` whether asking again is safe."""

    def __init__(self, reason: str, *, again: bool, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.again, self.after = reason, again, after


# What is sent


def _event(
    type: str,
    data: Mapping[str, Any],
    subject: str | None,
    ordering_key: str | None,
    timestamp: datetime | None,
    idempotency_key: str | None,
) -> Event:
    key = {} if idempotency_key is None else {"idempotency_key": idempotency_key}
    return Event(type, data, subject=subject, ordering_key=ordering_key, timestamp=timestamp, **key)


def _post_one(event: Event) -> _Call:
    return _Call("POST", "/v1/events", _write(_fields(event)), idempotency_key=event.idempotency_key)


def _post_many(events: Iterable[Event]) -> Iterator[_Call]:
    waiting = iter(events)
    while batch := list(islice(waiting, BATCH)):
        yield _Call("POST", "/v1/events/batch", _write({"events": [_fields(event) for event in batch]}))


def _create_subscriber(name: str, description: str) -> _Call:
    content = {"name": name, "description": description}
    return _Call("POST", "/v1/subscribers", _write(content), repeatable=False)


def _create_endpoint(subscriber_id: str, url: str, event_types: Sequence[str], settings: Mapping[str, Any]) -> _Call:
    content = {"subscriber_id": subscriber_id, "url": url, "event_types": list(event_types), **settings}
    return _Call("POST", "/v1/endpoints", _write(content), repeatable=False)


def _fields(event: Event) -> dict[str, Any]:
    fields = {
        "type": event.type,
        "data": event.data,
        "subject": event.subject,
        "ordering_key": event.ordering_key,
        "timestamp": event.timestamp.isoformat() if event.timestamp is not None else None,
        "idempotency_key": event.idempotency_key,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _write(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"an event's data can't hold a {type(value).__name__}: JSON has no such thing")


def _headers(key: str) -> dict[str, str]:
    if not (key and key.isascii() and key.isprintable()):
        raise ValueError("an API key is text like whk_…: this one is empty, or holds something else")
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Accept": "application/json"}


# How it is sent


def _ask(http: httpx.Client, call: _Call, until: float) -> httpx.Response:
    try:
        return http.request(
            call.method, call.path, content=call.body, params=dict(call.parameters), timeout=_timeout(until)
        )
    except httpx.TransportError as error:
        raise _unanswered(call, error) from None


async def _ask_async(http: httpx.AsyncClient, call: _Call, until: float) -> httpx.Response:
    try:
        return await http.request(
            call.method, call.path, content=call.body, params=dict(call.parameters), timeout=_timeout(until)
        )
    except httpx.TransportError as error:
        raise _unanswered(call, error) from None


def _timeout(until: float) -> httpx.Timeout:
    left = max(0.1, until - time.monotonic())
    return httpx.Timeout(min(LONGEST_REQUEST, left), connect=min(CONNECT, left))


def _unanswered(call: _Call, problem: httpx.TransportError) -> Exception:
    if isinstance(problem, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return ValueError("the gateway's URL must begin with https:// or http://")
    not_begun = isinstance(problem, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return _Later(type(problem).__name__, again=call.repeatable or not_begun)


def _judge(call: _Call, response: httpx.Response) -> httpx.Response:
    """The answer, if it is a yes; otherwise raises `Refused` or `_Later`."""
    status = response.status_code
    if status < 400:
        return response
    if status == 429 or status >= 500:
        # 429 is said before anything is done; after the others it may have been.
        again = call.repeatable or status == 429
        raise _Later(f"HTTP status {status}", again=again, after=_retry_after(response))
    raise _refusal(status, _problem(response))


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds (RFC 9110, section 10.2.3: a number or a date), or None where there is nothing of sense."""
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _patience(deadline: float) -> dict[str, Any]:
    return {
        "retry": retry_if_exception(lambda problem: isinstance(problem, _Later) and problem.again),
        "wait": _wait,
        "stop": stop_before_delay(deadline),
        "before_sleep": _say,
        "reraise": True,
    }


def _wait(state: RetryCallState) -> float:
    """Full jitter, so that a gateway that comes back isn't met by everybody at once; never before Retry-After."""
    backoff = random.uniform(0, min(LONGEST_WAIT, 0.1 * 2**state.attempt_number))  # noqa: S311
    return max(backoff, _problem_of(state).after or 0.0)


def _say(state: RetryCallState) -> None:
    _log.warning("webhook gateway: %s, asking again in %.1f s", _problem_of(state).reason, state.upcoming_sleep)


def _problem_of(state: RetryCallState) -> _Later:
    problem = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(problem, _Later)
    return problem


def _away(problem: _Later, call: _Call) -> GatewayUnavailable:
    return GatewayUnavailable(problem.reason, call.idempotency_key, problem.after)


# What comes back


def _read_accepted(response: httpx.Response) -> Accepted:
    return _accepted(response.json())


def _read_batch(response: httpx.Response) -> list[Accepted | Refused]:
    results = sorted(response.json()["results"], key=lambda result: int(result["index"]))
    return [_accepted(result) if "id" in result else _refused(result) for result in results]


def _read_subscriber(response: httpx.Response) -> Subscriber:
    found = response.json()
    return Subscriber(found["id"], found["name"])


def _read_endpoint(response: httpx.Response) -> Endpoint:
    found = response.json()
    return Endpoint(found["id"], found["url"], found.get("secret"))


def _accepted(found: Mapping[str, Any]) -> Accepted:
    moment = datetime.fromisoformat(found["accepted_at"])
    return Accepted(found["id"], found["type"], moment, bool(found.get("duplicate", False)))


def _refused(result: Mapping[str, Any]) -> Refused:
    return _refusal(int(result["status"]), result.get("error", {}))


def _refusal(status: int, problem: Mapping[str, Any]) -> Refused:
    faults = [
        Fault(fault.get("pointer", fault.get("parameter", "")), fault.get("rule", ""), fault.get("remedy", ""))
        for fault in problem.get("errors", ())
    ]
    return Refused(status, str(problem.get("title", "Refused")), str(problem.get("detail") or ""), faults)


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    """The problem document, or nothing where something in between answered (its text could hold anything)."""
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
