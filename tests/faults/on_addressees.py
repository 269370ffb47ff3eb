"""Faults of who gets what: two insurers' claims, while workers are killed and while the version before still runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
from uuid_utils.compat import uuid7

from .house import House
from .report import Report
from .stage import SLOTS, Never, Stage, moment, until

CLAIMS = 500
"""Of each insurer."""
KILLS = 12
PACE = 0.01
"""Seconds between two claims of an insurer."""
KEYS = 20
"""Ordering keys of each insurer."""
PAYERS = ("payer_17", "payer_18")
TYPE = "insurance_claim.denied"
TOO_OLD = 409
ROOT = Path(__file__).parents[2]
MADE_ROOM = "migrations/versions/0007_who_gets_what.py"
"""The revision before which no worker knew an addressee."""
SUBSCRIBER = """
INSERT INTO subscribers (id, tenant_id, name, external_id, event_types, content)
VALUES ($1, $2, $3, $3, ARRAY[$4], '{"level": "full", "subject": true}')
"""


@dataclass(slots=True)
class Insurer:
    """What was accepted for it: event ids by ordering key, in the order in which they were posted."""

    name: str
    accepted: dict[str, list[str]] = field(default_factory=dict)

    def events(self) -> set[str]:
        return {event_id for events in self.accepted.values() for event_id in events}


async def f24_two_insurers(house: House) -> Report:
    """two insurers, each its own claims, in an upgrade"""
    async with house.stage(workers=0, ordered=False) as stage:
        await stage.value("UPDATE endpoints SET deleted_at = now()")
        stage.endpoints.clear()
        insurers = [Insurer(name) for name in PAYERS]
        for insurer in insurers:
            await _add(stage, insurer)
        before = version_before(stage.code.parent / "before")
        if before is None:
            stage.notes.append("the version before isn't played: there is no history of the code here")
        olds = [await stage.start_worker(PYTHONPATH=str(before)) for _ in range(2)] if before else []
        enough, claims = asyncio.Event(), stage.length.times(CLAIMS)
        posting = [asyncio.create_task(_post(stage, insurer, claims, enough)) for insurer in insurers]
        if olds:
            await until(lambda: _refused(stage, 5), "an addressed event waits for the workers")
            stage.expect(
                not any(insurer.accepted for insurer in insurers), "an old worker could take an addressed event"
            )
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
        await asyncio.gather(*posting)
        return await _account(stage, insurers)


async def _add(stage: Stage, insurer: Insurer) -> None:
    subscriber_id = uuid7()
    await stage.value(SUBSCRIBER, subscriber_id, stage.tenant_id, insurer.name, TYPE)
    endpoint_id = await stage.add_endpoint(insurer.name, ordering="relaxed", event_types=[TYPE], counts=False)
    await stage.value("UPDATE endpoints SET subscriber_id = $1 WHERE id = $2", subscriber_id, endpoint_id)
    await stage.value("UPDATE configuration SET version = version + 1")


async def _post(stage: Stage, insurer: Insurer, claims: int, enough: asyncio.Event) -> None:
    """One claim after the other, each again until it is accepted: so many at least, and until it is enough."""
    headers = {"Authorization": f"Bearer {stage.key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=15)) as session:
        for number in count():
            if number >= claims and enough.is_set():
                return
            key = f"clm_{insurer.name}_{number % KEYS}"
            event: dict[str, Any] = {"type": TYPE, "to": [insurer.name], "data": {"claim_id": key}}
            event["idempotency_key"] = f"{insurer.name} {number}"
            event_id = await _accepted(stage, session, json.dumps(event).encode())
            insurer.accepted.setdefault(key, []).append(event_id)
            await asyncio.sleep(PACE)


async def _accepted(stage: Stage, session: aiohttp.ClientSession, body: bytes) -> str:
    for attempt in count():
        began = monotonic()
        async with session.post(f"{stage.address}/v1/events", data=body) as answer:
            told = await answer.json(content_type=None)
            if answer.status == 202:
                return str(told["id"])
            stage.refusals.append(answer.status)
        if monotonic() - began > 60 or attempt > 1_000:
            break
        await asyncio.sleep(0.05)
    raise Never("an addressed event is accepted")


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
