"""An HMS service that posts events at a steady rate, whatever happens, and keeps every receipt.

A post that isn't answered 202 is repeated with its idempotency key until it is, as a well-behaved service does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any

import aiohttp

TYPE = "medical_record.updated"
TYPES = (TYPE, "patient.updated", "consent.changed", "patient.erasure_requested")
"""All of one ordering key. Of two workers each is the first for some of them."""
PATIENTS = 40
DATA: dict[str, Any] = {
    "record_id": "rec_1",
    "patient_id": "pat_1",
    "encounter_id": "enc_5d07",
    "section": "problem_list",
    "change": "updated",
    "changed_fields": ["conditions"],
    "resource": {"type": "Condition", "id": "cond_51aa", "version": 4},
    "author_practitioner_id": "prac_2f81",
    "sensitivity": ["N"],
    "consent_id": "con_1",
    "request_id": "req_1",
    "version": 1,
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """A 202. ``at`` is monotonic seconds."""

    event_id: str
    at: float
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """Any other answer, and how many seconds it took."""

    at: float
    status: int
    seconds: float
    retry_after: str | None


@dataclass(slots=True)
class Ledger:
    """What the producer was told: receipts by idempotency key, in the order in which they came."""

    receipts: dict[str, list[Receipt]] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    broken: int = 0
    """Posts that got no answer at all."""

    def note(self, key: str, event_id: str, at: float, *, duplicate: bool) -> None:
        self.receipts.setdefault(key, []).append(Receipt(event_id, at, duplicate))

    def accepted(self) -> dict[str, float]:
        """Each accepted event, with the time of its first receipt."""
        first: dict[str, float] = {}
        for receipts in self.receipts.values():
            for receipt in receipts:
                first.setdefault(receipt.event_id, receipt.at)
        return first

    def keys_with_two_events(self) -> int:
        return sum(len({receipt.event_id for receipt in receipts}) > 1 for receipts in self.receipts.values())

    def repeated(self) -> int:
        """Receipts that said: this was accepted before."""
        return sum(receipt.duplicate for receipts in self.receipts.values() for receipt in receipts)


class Producer:
    def __init__(self, ledger: Ledger, address: str, key: str, numbers: Iterator[int] | None = None) -> None:
        self._ledger = ledger
        self._address = address
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._numbers = numbers or count()
        self._posts: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._types: Sequence[str] = ()
        self._session: aiohttp.ClientSession | None = None
        self._steady: asyncio.Task[None] | None = None

    def begin(self, rate: float, types: Sequence[str] = (TYPE,)) -> None:
        """Posts ``rate`` events a second from now on, of these types in turn."""
        self._types = types
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=15)
        )
        self._steady = asyncio.create_task(self._post_steadily(rate))

    async def end(self, patience: float) -> int:
        """No new events; waits until every one is accepted. Returns how many are not."""
        self._stopping.set()
        if self._steady is not None:
            await self._steady
        pending: set[asyncio.Task[None]] = set()
        if self._posts:
            _, pending = await asyncio.wait(self._posts, timeout=patience)
        for task in pending:
            task.cancel()
        if self._session is not None:
            await self._session.close()
        return len(pending)

    async def _post_steadily(self, rate: float) -> None:
        began = monotonic()
        for made in count(1):
            number = next(self._numbers)
            task = asyncio.create_task(self._post_until_accepted(number))
            self._posts.add(task)
            task.add_done_callback(self._posts.discard)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), max(began + made / rate - monotonic(), 0))
            if self._stopping.is_set():
                return

    async def _post_until_accepted(self, number: int) -> None:
        key, wait = f"post-{number}", 0.1
        body = json.dumps(
            {"type": self._types[number % len(self._types)], "data": data(number), "idempotency_key": key}
        ).encode()
        while not await self._post(key, body):
            await asyncio.sleep(wait)
            wait = min(wait * 2, 2.0)

    async def _post(self, key: str, body: bytes) -> bool:
        assert self._session is not None
        began = monotonic()
        try:
            async with self._session.post(f"{self._address}/v1/events", data=body, headers=self._headers) as answer:
                text = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            self._ledger.broken += 1
            return False
        now = monotonic()
        if answer.status != 202:
            retry_after = answer.headers.get("Retry-After")
            self._ledger.refused.append(Refused(now, answer.status, now - began, retry_after))
            return False
        told = json.loads(text)
        self._ledger.note(key, told["id"], now, duplicate=told["duplicate"])
        return True


def data(number: int) -> dict[str, Any]:
    return {**DATA, "record_id": f"rec_{number}", "patient_id": f"pat_{number % PATIENTS}"}
