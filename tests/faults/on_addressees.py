"""Faults of who gets what: two insurers' claims, while workers are killed and while the version before still runs."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp

from webhook_gateway.operations.first_start import issue_key

from .house import House
from .report import Report
from .stage import DEADLINE, PATIENCE, SLOTS, Never, Stage, moment, until

CLAIMS = 500
"""Of each insurer and way."""
KILLS = 12
PACE = 0.02
"""Seconds between two claims of an insurer."""
KEYS = 20
"""Ordering keys of each insurer and way."""
PAYERS = ("payer_17", "payer_18")
TOO_OLD = 409
ROOT = Path(__file__).parents[2]
MADE_ROOM = "migrations/versions/0007_who_gets_what.py"
"""The revision before which no worker knew an addressee, or a filter."""


@dataclass(slots=True)
class Insurer:
    """What was accepted for it: event ids by ordering key, in the order in which they were posted.

    It gets its own by ``to``, or by a filter of its endpoint; another type each way.
    """

    payer: str
    by_filter: bool
    accepted: dict[str, list[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.payer}_by_filter" if self.by_filter else self.payer

    @property
    def type(self) -> str:
        return "insurance_claim.submitted" if self.by_filter else "insurance_claim.denied"

    def claim(self, claim_id: str) -> dict[str, Any]:
        if not self.by_filter:
            return {"type": self.type, "to": [self.name], "data": {"claim_id": claim_id}}
        of_whom = {"patient_id": "pat_1", "member_id": "W1", "payer_id": self.payer}
        total = {"value": "3420.00", "currency": "USD"}
        return {"type": self.type, "data": {"claim_id": claim_id, "total": total, **of_whom}}

    def events(self) -> set[str]:
        return {event_id for events in self.accepted.values() for event_id in events}


async def f24_two_insurers(house: House) -> Report:
    """two insurers, each its own claims, in an upgrade"""
    async with house.stage(workers=0, ordered=False) as stage:
        await stage.value("UPDATE endpoints SET deleted_at = now()")
        stage.endpoints.clear()
        async with stage.hospital() as hospital:
            _, admin = await issue_key(hospital.database, hospital.vault, "administrator", ["admin"])
        insurers = [Insurer(payer, by_filter) for payer in PAYERS for by_filter in (False, True)]
        before = version_before(stage.code.parent / "before")
        if before is None:
            stage.notes.append("the version before isn't played: there is no history of the code here")
        olds = [await stage.start_worker(PYTHONPATH=str(before)) for _ in range(2)] if before else []
        enough, claims = asyncio.Event(), stage.length.times(CLAIMS)
        playing = [asyncio.create_task(_play(stage, admin, insurer, claims, enough)) for insurer in insurers]
        if olds:
            await until(lambda: _refused(stage, 20), "what an old worker doesn't know waits for it to end")
            stage.expect(not any(insurer.accepted for insurer in insurers), "an old worker could take a claim")
        for old in olds:
            await stage.terminate(old)
            await stage.start_worker()
        while len(stage.workers) < 2:
            await stage.start_worker()
        for _ in range(stage.length.times(KILLS)):
            await moment()
            await stage.kill(stage.any_worker())
            await stage.start_worker()
        enough.set()
        await asyncio.gather(*playing)
        return await _account(stage, insurers)


async def _play(stage: Stage, admin: str, insurer: Insurer, claims: int, enough: asyncio.Event) -> None:
    """Its endpoint is made, then one claim after the other: so many at least, and until it is enough."""
    subscriber = {"name": insurer.name, "external_id": insurer.name, "event_types": [insurer.type], "content": "full"}
    endpoint = {"url": stage.partner.url(f"/{insurer.name}"), "event_types": [insurer.type], "deadline": DEADLINE}
    endpoint |= {"schedule": [1, 1, 1, 1, 1, 2, 2, 5, 5], "slots": SLOTS}
    if insurer.by_filter:
        endpoint["filter"] = {"payer_id": [insurer.payer]}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session:
        endpoint["subscriber_id"] = await _accepted(stage, session, admin, "/v1/subscribers", subscriber)
        await _accepted(stage, session, admin, "/v1/endpoints", endpoint)
        for number in count():
            if number >= claims and enough.is_set():
                return
            claim_id = f"clm_{insurer.name}_{number % KEYS}"
            event = {**insurer.claim(claim_id), "idempotency_key": f"{insurer.name} {number}"}
            event_id = await _accepted(stage, session, stage.key, "/v1/events", event)
            insurer.accepted.setdefault(claim_id, []).append(event_id)
            await asyncio.sleep(PACE)


async def _accepted(stage: Stage, session: aiohttp.ClientSession, key: str, path: str, body: dict[str, Any]) -> str:
    """The id of what was made, asked for again as long as it has to wait."""
    began = monotonic()
    while monotonic() - began < PATIENCE:
        headers = {"Authorization": f"Bearer {key}"}
        async with session.post(stage.address + path, json=body, headers=headers) as answer:
            told = await answer.json(content_type=None)
        if answer.status < 300:
            return str(told["id"])
        if answer.status != TOO_OLD:
            raise Never(f"{path} is accepted: {answer.status} {told}")
        stage.refusals.append(answer.status)
        await asyncio.sleep(0.05)
    raise Never(f"{path} is accepted")


async def _refused(stage: Stage, times: int) -> bool:
    return stage.refusals.count(TOO_OLD) >= times


async def _account(stage: Stage, insurers: list[Insurer]) -> Report:
    """Each has exactly its own, in the order of each key."""
    calls = stage.partner.calls
    lost: set[str] = set()

    async def complete() -> bool:
        nonlocal lost
        lost = {e for insurer in insurers for e in insurer.events() if stage.partner.had(insurer.name, e) is None}
        return not lost and not await stage.value("SELECT count(*) FROM deliveries")

    try:
        await until(complete, "every claim is delivered")
    except Never as error:
        stage.wrong.append(str(error))
    duplicates = 0
    for insurer in insurers:
        strangers = calls[insurer.name].keys() - insurer.events()
        stage.expect(not strangers, f"{insurer.name} got {len(strangers)} events that are not its own")
        duplicates += sum(sum(c.status < 300 for c in of_one) - 1 for of_one in calls[insurer.name].values())
        for events in insurer.accepted.values():
            of_key = [calls[insurer.name][event_id] for event_id in events if calls[insurer.name][event_id]]
            wrong = sum(
                after[0].at < min(call.at for call in earlier if call.status < 300)
                for earlier, after in pairwise(of_key)
                if any(call.status < 300 for call in earlier)
            )
            stage.expect(not wrong, f"{wrong} claims of {insurer.name} came out of order")
    allowed = stage.disturbances * SLOTS * len(insurers)
    stage.expect(duplicates <= allowed, f"{duplicates} duplicates, and only {allowed} are allowed")
    stage.expect(not lost, f"{len(lost)} accepted events were lost")
    stage.expect_all_alive()
    stage._note_errors()
    accepted = sum(len(insurer.events()) for insurer in insurers)
    stage.notes.append(f"{stage.refusals.count(TOO_OLD)} posts had to wait for workers of the new version")
    return Report(
        accepted=accepted,
        delivered=accepted - len(lost),
        lost=len(lost),
        duplicates=duplicates,
        allowed=allowed,
        wrong=list(stage.wrong),
        notes=list(stage.notes),
    )


def version_before(directory: Path) -> Path | None:
    """The code of before an addressee was known, or None where there is no history to take it from."""
    git = ("git", "-C", str(ROOT))
    asked = (*git, "log", "-1", "--diff-filter=A", "--format=%H", "--", MADE_ROOM)
    try:
        made = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        archive = subprocess.run((*git, "archive", f"{made}^", "src"), capture_output=True, check=True).stdout
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(("tar", "-x", "-C", str(directory)), input=archive, check=True)
    return directory / "src"
