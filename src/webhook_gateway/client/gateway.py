"""The gateway as an object: one for threads, and the same for asyncio."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx
from tenacity import AsyncRetrying, Retrying

from .calls import (
    Call,
    Posting,
    create_endpoint,
    create_subscriber,
    event_of,
    post_one,
    read_accepted,
    read_endpoint,
    read_subscriber,
    write,
)
from .sending import Later, ask, ask_async, headers, judge, patience, unavailable
from .values import Accepted, Endpoint, Event, Refused, Subscriber


class Gateway:
    """Speaks to a gateway at ``url`` with an API key. ``deadline`` bounds a call, with all its retries, in seconds.

    Use it as a context manager, or `close` it; it may be shared by threads.
    """

    def __init__(self, url: str, key: str, *, deadline: float = 30.0) -> None:
        self._deadline = deadline
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers(key))

    def post_event(
        self,
        type: str,
        data: Mapping[str, Any],
        *,
        subject: str | None = None,
        ordering_key: str | None = None,
        timestamp: datetime | None = None,
        idempotency_key: str | None = None,
        to: Sequence[str] | None = None,
        patient: str | None = None,
    ) -> Accepted:
        """Posts one event, and returns when the gateway has stored it. Without ``to`` it is for whoever wants it.

        Raises:
            Refused: the event, or the key, is not right; or the same idempotency key was used for another event.
            GatewayUnavailable: no answer until the deadline.
            ValueError: ``timestamp`` has no zone.
            TypeError: ``data`` holds what JSON can't.
        """
        event = event_of(type, data, subject, ordering_key, timestamp, idempotency_key, to, patient)
        return read_accepted(self._send(post_one(event)))

    def post_events(self, events: Iterable[Event]) -> list[Accepted | Refused]:
        """Posts many events, in as many requests as they need, and returns what became of each, in their order.

        ``deadline`` is each request's. One event that is too long is refused (413), and the others are not.

        Raises:
            Refused: a whole request is not right (the key has no leave); its ``results`` are those of the first events.
            GatewayUnavailable: no answer until the deadline; its ``results`` are those of the first events. Post all of
                them again, or those without a result: what was stored meanwhile is found by its key.
        """
        posting = Posting(events)
        for call in posting:
            with posting.keeping():
                posting.answered(self._send(call))
        return posting.results

    def create_subscriber(
        self, name: str, description: str = "", *, event_types: Sequence[str] = (), **settings: Any
    ) -> Subscriber:
        """Registers a partner and the ``event_types`` that it may have. ``settings`` are the API's other fields."""
        return read_subscriber(self._send(create_subscriber(name, description, event_types, settings)))

    def create_endpoint(
        self, subscriber_id: str, url: str, event_types: Sequence[str] | None = None, **settings: Any
    ) -> Endpoint:
        """Registers a partner's URL, for all that its subscriber may have or for fewer ``event_types``.

        ``settings`` are the API's other fields: schedule, ordering, secret …
        """
        return read_endpoint(self._send(create_endpoint(subscriber_id, url, event_types, settings)))

    def get(self, path: str, **parameters: str | int) -> Any:
        """Reads anything else of the API, as JSON: ``gateway.get("/v1/deliveries", state="dead")``."""
        return self._send(Call("GET", path, parameters=parameters)).json()

    def post(self, path: str, content: Mapping[str, Any] | None = None) -> Any:
        """Does anything else of the API: ``gateway.post("/v1/endpoints/ep_…/pause")``.

        Asked again only where the gateway can't have done it yet.
        """
        return self.request("POST", path, content)

    def request(self, method: str, path: str, content: Mapping[str, Any] | None = None, **parameters: str | int) -> Any:
        """The same with any method: ``gateway.request("PATCH", "/v1/endpoints/ep_…", {"slots": 4})``."""
        response = self._send(Call(method, path, write(content or {}), parameters, repeatable=False))
        return response.json() if response.content else None

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: Call) -> httpx.Response:
        until = time.monotonic() + self._deadline
        try:
            for attempt in Retrying(**patience(self._deadline)):
                with attempt:
                    return judge(call, ask(self._http, call, until))
        except Later as error:
            raise unavailable(error, call) from None
        raise AssertionError("unreachable: Retrying returns or raises")


class AsyncGateway:
    """The same as `Gateway`, for services that run on asyncio."""

    def __init__(self, url: str, key: str, *, deadline: float = 30.0) -> None:
        self._deadline = deadline
        self._http = httpx.AsyncClient(base_url=url.rstrip("/"), headers=headers(key))

    async def post_event(
        self,
        type: str,
        data: Mapping[str, Any],
        *,
        subject: str | None = None,
        ordering_key: str | None = None,
        timestamp: datetime | None = None,
        idempotency_key: str | None = None,
        to: Sequence[str] | None = None,
        patient: str | None = None,
    ) -> Accepted:
        """See `Gateway.post_event`."""
        event = event_of(type, data, subject, ordering_key, timestamp, idempotency_key, to, patient)
        return read_accepted(await self._send(post_one(event)))

    async def post_events(self, events: Iterable[Event]) -> list[Accepted | Refused]:
        """See `Gateway.post_events`."""
        posting = Posting(events)
        for call in posting:
            with posting.keeping():
                posting.answered(await self._send(call))
        return posting.results

    async def create_subscriber(
        self, name: str, description: str = "", *, event_types: Sequence[str] = (), **settings: Any
    ) -> Subscriber:
        """See `Gateway.create_subscriber`."""
        return read_subscriber(await self._send(create_subscriber(name, description, event_types, settings)))

    async def create_endpoint(
        self, subscriber_id: str, url: str, event_types: Sequence[str] | None = None, **settings: Any
    ) -> Endpoint:
        """See `Gateway.create_endpoint`."""
        return read_endpoint(await self._send(create_endpoint(subscriber_id, url, event_types, settings)))

    async def get(self, path: str, **parameters: str | int) -> Any:
        """See `Gateway.get`."""
        return (await self._send(Call("GET", path, parameters=parameters))).json()

    async def post(self, path: str, content: Mapping[str, Any] | None = None) -> Any:
        """See `Gateway.post`."""
        return await self.request("POST", path, content)

    async def request(
        self, method: str, path: str, content: Mapping[str, Any] | None = None, **parameters: str | int
    ) -> Any:
        """See `Gateway.request`."""
        response = await self._send(Call(method, path, write(content or {}), parameters, repeatable=False))
        return response.json() if response.content else None

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, call: Call) -> httpx.Response:
        until = time.monotonic() + self._deadline
        try:
            async for attempt in AsyncRetrying(**patience(self._deadline)):
                with attempt:
                    return judge(call, await ask_async(self._http, call, until))
        except Later as error:
            raise unavailable(error, call) from None
        raise AssertionError("unreachable: AsyncRetrying returns or raises")
