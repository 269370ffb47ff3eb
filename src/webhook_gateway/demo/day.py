"""A hospital day: posted through the client, watched in the partners' ledgers, and accounted for."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import httpx

from webhook_gateway.client import AsyncGateway

from .partners import Partner, Posted
from .screen import Screen
from .stage import Stage

PATIENCE = 90.0
"""Seconds within which everything has to be delivered."""
ABSENCE = 4.0
"""Seconds for which the partner that is down at first stays away."""
GLANCE, WATCH = 0.25, 1.0
"""Seconds between two looks, while the day is lived through and after it."""
PAGE = 200


@dataclass(frozen=True, slots=True)
class Account:
    """What the closing line says. From ``lost`` on it is from ledgers, the rest is the gateway's word."""

    accepted: int
    deliveries: int
    delivered: int
    dead: int
    lost: int
    misdelivered: int
    bad_signatures: int

    def __str__(self) -> str:
        return (
            f"demo: accepted={self.accepted} deliveries={self.deliveries} delivered={self.delivered} "
            f"dead={self.dead} lost={self.lost} misdelivered={self.misdelivered} bad_signatures={self.bad_signatures}"
        )

    def is_whole(self, expected: int) -> bool:
        """Whether both sides agree that everything that was accepted has arrived."""
        counted = self.accepted > 0 and self.deliveries == self.delivered == expected
        return counted and self.dead == self.lost == self.misdelivered == self.bad_signatures == 0


class Day:
    def __init__(self, stage: Stage, screen: Screen, gateway: AsyncGateway) -> None:
        self._stage, self._screen, self._gateway = stage, screen, gateway
        self._accepted: list[Posted] = []
        self._all_posted = False

    async def live_through(self, seed: int, patients: int, pause: float) -> bool:
        """Posts the day and watches until every partner has all that it wants; False when the time is over before.

        ``pause`` is how many seconds lie between two events.
        """
        working = [
            asyncio.create_task(self._post(seed, patients, pause)),
            asyncio.create_task(self._stage.bring_back(ABSENCE)),
        ]
        deadline = time.monotonic() + PATIENCE
        try:
            async with httpx.AsyncClient(timeout=5) as http:
                while not await self._is_over(http):
                    for task in working:
                        if task.done():
                            task.result()
                    if time.monotonic() > deadline:
                        self._screen.line(f"not everything arrived within {PATIENCE:g} s: {self._what_is_missing()}")
                        return False
                    await asyncio.sleep(GLANCE)
                await asyncio.gather(*working)
                return True
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    async def go_on_watching(self) -> None:
        """Shows what else happens, until cancelled."""
        async with httpx.AsyncClient(timeout=5) as http:
            while True:
                await self._glance(http)
                await asyncio.sleep(WATCH)

    def expected(self) -> list[tuple[str, Partner]]:
        """The id of every event that was answered with 202, with every partner that should have it."""
        accepted = [*self._accepted, *self._stage.desk.posted()]
        return [
            (each.id, partner) for each in accepted for partner in self._stage.partners if partner.should_have(each)
        ]

    async def account(self) -> Account:
        states = [state async for state in _states(self._gateway)]
        had = {(event_id, partner.name) for partner in self._stage.partners for event_id in partner.kept()}
        ledgers = [row for partner in [*self._stage.partners, self._stage.desk] for row in partner.ledger]
        return Account(
            accepted=len(self._accepted) + len(self._stage.desk.posted()),
            deliveries=len(states),
            delivered=states.count("delivered"),
            dead=states.count("dead"),
            lost=len(self._missing()),
            misdelivered=len(had - {(event_id, partner.name) for event_id, partner in self.expected()}),
            bad_signatures=sum(not row["signature_ok"] for row in ledgers),
        )

    async def _post(self, seed: int, patients: int, pause: float) -> None:
        sys.path.insert(0, str(self._stage.examples))
        hospital_day = importlib.import_module("examples.hospital_day").hospital_day
        for event in hospital_day(seed, patients):
            accepted = await self._gateway.post_event(
                event.type, event.data, subject=event.subject, ordering_key=event.ordering_key, to=event.to
            )
            to = None if event.to is None else tuple(event.to)
            self._accepted.append(Posted(accepted.id, accepted.type, to, event.data.get("payer_id")))
            await asyncio.sleep(pause)
        self._all_posted = True
        self._screen.line(f"the hospital has posted {len(self._accepted)} events; each was answered with 202")

    async def _is_over(self, http: httpx.AsyncClient) -> bool:
        await self._glance(http)
        return self._all_posted and not (self._missing() or self._undecided() or self._open())

    async def _glance(self, http: httpx.AsyncClient) -> None:
        """What the ledgers say now, and what the gateway still has to do for each partner."""
        for partner in [*self._stage.partners, self._stage.desk]:
            if partner.is_up:
                with suppress(httpx.TransportError):
                    partner.ledger = (await http.get(f"{partner.url}/ledger")).json()
        pages = [await self._gateway.get("/v1/deliveries", state=state, limit=PAGE) for state in ("pending", "sending")]
        for partner in self._stage.partners:
            pending, sending = ([one for one in p["items"] if one["endpoint_id"] == partner.endpoint_id] for p in pages)
            partner.waiting = len(pending) + len(sending)
            partner.in_vain = max(partner.in_vain, sum(delivery["attempt"] for delivery in pending))
        self._screen.show(self._stage.desk.posted())

    def _missing(self) -> list[Partner]:
        """The partner of each event that it has not got."""
        kept = {partner.name: partner.kept() for partner in self._stage.partners}
        return [partner for id, partner in self.expected() if id not in kept[partner.name]]

    def _undecided(self) -> int:
        claims = sum(each.type == "insurance_claim.submitted" for each in self._accepted)
        return claims - len(self._stage.desk.posted())

    def _open(self) -> int:
        return sum(partner.waiting for partner in self._stage.partners)

    def _what_is_missing(self) -> str:
        missing = [partner.name for partner in self._missing()]
        parts = [f"{name} lacks {missing.count(name)}" for name in dict.fromkeys(missing)]
        parts += [f"{self._undecided()} claims have no decision"] if self._undecided() else []
        parts += [f"the gateway has {self._open()} deliveries open"] if self._open() else []
        return ", ".join(parts) or "the day was not posted to its end"


async def _states(gateway: AsyncGateway) -> AsyncIterator[str]:
    """The state of every delivery, as the gateway tells it."""
    cursor: dict[str, str] = {}
    while True:
        page = await gateway.get("/v1/deliveries", limit=PAGE, **cursor)
        for delivery in page["items"]:
            yield delivery["state"]
        if page["next_cursor"] is None:
            return
        cursor = {"cursor": page["next_cursor"]}
