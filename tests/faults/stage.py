"""The stage of a fault: real processes, a real PostgreSQL, links between them, partners, and a producer's ledger."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import aiohttp
import asyncpg
from uuid_utils.compat import uuid7

from tests.support.hospital import Hospital, hospital_on
from tests.support.postgres import MortalPostgres
from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.host.processes import Process, Program
from webhook_gateway.operations.first_start import issue_key

from .link import Link
from .partner import Bookkeeper
from .producer import TYPE, Ledger, Producer
from .report import Report

RATE = 80.0
DEADLINE = 1.0
"""Seconds that the stage's endpoints allow for a request."""
LEASE_MARGIN = 2.0
LEASE = DEADLINE + LEASE_MARGIN
SLOTS = 10
PATIENCE = 60.0
"""Seconds after which what has not happened counts as never happening."""
HERE = Path(__file__).parent


class Never(Exception):
    """What a fault waited for did not happen."""


class Skip(Exception):
    """The fault can't be made here; the message says why."""


@dataclass(frozen=True, slots=True)
class Length:
    """How much of a fault: ``many`` of the times that it asks for, at most ``longest`` seconds of an outage."""

    many: float
    longest: float

    def times(self, wanted: int) -> int:
        return max(1, round(wanted * self.many))

    def seconds(self, wanted: float) -> float:
        return min(wanted, self.longest)


QUICK = Length(many=0.05, longest=4)
SHORT = Length(many=0.25, longest=8)
LONG = Length(many=1.0, longest=1_800)


@dataclass(slots=True)
class Stage:
    """What a fault plays on. ``server`` is None where the PostgreSQL isn't ours to kill.

    ``code`` is where processes import the gateway from.
    """

    database_url: str
    length: Length
    code: Path
    server: MortalPostgres | None = None
    address: str = ""
    ledger: Ledger = field(default_factory=Ledger)
    partner: Bookkeeper = field(default_factory=Bookkeeper)
    endpoints: dict[str, UUID] = field(default_factory=dict)
    ordered: set[str] = field(default_factory=set)
    tenant_id: UUID = field(default_factory=uuid7)
    master_keys: str = ""
    furnished: Hospital | None = None
    workers: list[Process] = field(default_factory=list)
    apis: list[Process] = field(default_factory=list)
    api_link: Link | None = None
    worker_link: Link | None = None
    resumed: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    disturbances: int = 0
    refusals: list[int] = field(default_factory=list)
    """Statuses of posts that were not accepted."""
    settings: dict[str, str] = field(default_factory=dict)
    _directory: Path = Path()
    key: str = field(default="", repr=False)
    _ended_on_purpose: set[int] = field(default_factory=set)
    _processes: list[Process] = field(default_factory=list)
    _numbers: Any = field(default_factory=count)

    # Processes

    async def start_api(self, **settings: str) -> Process:
        """Starts one, on the port that every API of this stage has, and waits until it answers."""
        port = urlsplit(self.address).port
        process = self._start("API", ("serve", "--port", str(port), "--processes", "1"), self.api_link, settings)
        self.apis.append(process)

        async def answers() -> bool:
            if process.ended.done():
                if not self._may_be_gone(process):
                    raise process.why("ended before it answered")
                return True  # at a failpoint
            try:
                # It listens before it is there: only an answer says that it is.
                async with session.get(f"{self.address}/healthz") as answer:
                    return answer.status == 200
            except (aiohttp.ClientError, OSError, TimeoutError):
                return False

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            await until(answers, "an API answers")
        return process

    async def start_worker(self, link: Link | None = None, **settings: str) -> Process:
        """Starts one and waits for its first sign of life."""
        process = self._start("worker", ("work", "--processes", "1"), link or self.worker_link, settings)
        self.workers.append(process)

        async def lives() -> bool:
            if process.ended.done():
                if not self._may_be_gone(process):
                    raise process.why("ended before it worked")
                return True  # at a failpoint
            return bool(await self.value("SELECT count(*) FROM workers WHERE name LIKE $1", f"%:{process.pid}"))

        await until(lives, "a worker works")
        return process

    async def kill(self, process: Process) -> float:
        """kill -9. Returns when it was."""
        self._gone(process)
        process.kill()
        at = monotonic()
        await process.ended
        self.disturbances += 1
        return at

    async def terminate(self, process: Process) -> tuple[int, float]:
        """SIGTERM. Returns the exit status and how many seconds it took."""
        self._gone(process)
        began = monotonic()
        os.kill(process.pid, signal.SIGTERM)
        status = await asyncio.wait_for(process.ended, PATIENCE)
        return status, monotonic() - began

    async def dies(self, process: Process) -> float:
        """Waits until it has killed itself at its failpoint. Returns when it was."""
        self._gone(process)
        try:
            await asyncio.wait_for(asyncio.shield(process.ended), PATIENCE)
        except TimeoutError:
            raise Never(f"never: a process kills itself; {await self._stuck(self._missing())}") from None
        self.expect(process.ended.result() == -signal.SIGKILL, "the failpoint was not reached")
        self.disturbances += 1
        return monotonic()

    def any_worker(self) -> Process:
        return random.choice(self.workers)

    def _start(self, name: str, command: tuple[str, ...], link: Link | None, settings: dict[str, str]) -> Process:
        environment = {
            "DATABASE_URL": self.database_url if link is None else _through(self.database_url, link),
            "WEBHOOK_GATEWAY_MASTER_KEYS": self.master_keys,
            "WEBHOOK_GATEWAY_DEVELOPMENT": "true",
            "WEBHOOK_GATEWAY_LOG_LEVEL": "warning",
            "WEBHOOK_GATEWAY_LEASE_MARGIN": str(LEASE_MARGIN),
            "PYTHONPATH": str(self.code),
            **self.settings,
            **settings,
        }
        log = self._directory / f"{name}-{len(self._processes)}.log"
        program = Program(name, (sys.executable, "-P", "-m", "webhook_gateway.cli", *command), environment, log)
        process = Process(program)
        self._processes.append(process)
        return process

    def _gone(self, process: Process) -> None:
        self._ended_on_purpose.add(process.pid)
        for group in (self.apis, self.workers):
            if process in group:
                group.remove(process)

    # The database

    async def value(self, query: str, *arguments: object) -> Any:
        """One value from the database, asked on a connection past every link."""
        connection = await asyncpg.connect(self.database_url, timeout=10)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    async def rows(self, query: str, *arguments: object) -> list[Any]:
        connection = await asyncpg.connect(self.database_url, timeout=10)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    def postgres(self) -> MortalPostgres:
        if self.server is None:
            raise Skip("the PostgreSQL isn't ours to stop")
        return self.server

    # Endpoints

    async def add_endpoint(
        self,
        name: str,
        *,
        url: str | None = None,
        ordering: str = "none",
        state: str = "enabled",
        secret: str | None = None,
        counts: bool = True,
        slots: int = SLOTS,
        schedule: Sequence[float] = (0.3, 0.5, 1, 1, 2, 5, 10, 20, 30),
        event_types: Sequence[str] = ("*",),
    ) -> UUID:
        """An endpoint of the stage's partner. Only what ``counts`` has to get every event."""
        async with self.hospital() as hospital:
            endpoint_id = await hospital.endpoint(
                *event_types,
                url=url or self.partner.url(f"/{name}"),
                secret=secret,
                ordering=ordering,
                slots=slots,
                deadline=DEADLINE,
                schedule=list(schedule),
                state=state,
            )
        if counts:
            self.endpoints[name] = endpoint_id
        if ordering != "none":
            self.ordered.add(name)
        return endpoint_id

    def vault(self) -> Vault:
        return Vault(MasterKeys.parse(self.master_keys))

    @asynccontextmanager
    async def hospital(self) -> AsyncIterator[Hospital]:
        """The hospital past every link, with the keys that it has now."""
        assert self.furnished is not None
        async with self.furnished.elsewhere(self.master_keys) as hospital:
            yield hospital

    # Load

    @asynccontextmanager
    async def load(
        self, rate: float = RATE, *, flowing: bool = True, types: Sequence[str] = (TYPE,)
    ) -> AsyncIterator[None]:
        """Events at a steady rate until the fault is over; where they are ``flowing``, from the first delivered on."""
        producer = Producer(self.ledger, self.address, self.key, self._numbers)
        producer.begin(rate, types)
        try:
            if flowing:
                await self.wait_for_traffic()
            yield
        finally:
            never = await producer.end(PATIENCE)
            self.expect(never == 0, f"{never} posts were never accepted")

    async def wait_for_traffic(self, seconds: float = PATIENCE) -> float:
        """Until an event is accepted, and one is delivered, after now. Returns how many seconds that took."""
        mark = monotonic()

        async def both() -> bool:
            self._expect_no_death()
            last = list(self.ledger.receipts.values())[-1:]
            return bool(last) and last[0][-1].at > mark and self.partner.last_at > mark

        try:
            await until(both, "events are accepted and delivered", seconds)
        except Never as error:
            raise Never(f"{error}; {await self._stuck(self._missing())}") from None
        return monotonic() - mark

    async def catch_up(self, mark: float, seconds: float = PATIENCE) -> float:
        """Until everything that was accepted before the mark is delivered. Returns how many seconds after it."""

        async def delivered() -> bool:
            self._expect_no_death()
            return not self._missing(before=mark)

        try:
            await until(delivered, "what was accepted before is delivered", seconds)
        except Never as error:
            raise Never(f"{error}; {await self._stuck(self._missing(before=mark))}") from None
        accepted = [event_id for event_id, at in self.ledger.accepted().items() if at <= mark]
        times = [self.partner.had(name, event_id) or 0.0 for name in self.endpoints for event_id in accepted]
        return max([0.0, *(at - mark for at in times)])

    async def settle(self, seconds: float = PATIENCE) -> None:
        """Until nothing is on its way any more."""

        async def empty() -> bool:
            open_rows = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM deliveries)"
            return not self._missing() and not await self.value(open_rows)

        try:
            await until(empty, "nothing is on its way", seconds)
        except Never as error:
            self.wrong.append(f"{error}; {await self._stuck(self._missing())}")

    async def _stuck(self, missing: list[str]) -> str:
        """Where things are that should have arrived."""
        (row,) = await self.rows(
            "SELECT (SELECT count(*) FROM outbox) AS outbox, count(*) FILTER (WHERE due_at <= now()) AS due, "
            "count(*) FILTER (WHERE due_at > now() AND lease_id IS NOT NULL) AS leased, "
            "count(*) FILTER (WHERE due_at > now() AND lease_id IS NULL) AS later, "
            "count(*) FILTER (WHERE due_at IS NULL) AS behind_another FROM deliveries"
        )
        self._note_errors()
        told = "; ".join([*self._status_of_workers(), *self.notes])
        return f"{len(missing)} events are missing; deliveries: {dict(row)}; {told}"

    def _status_of_workers(self) -> list[str]:
        return [f"{p.program.name}: {p.ended.result() if p.ended.done() else 'runs'}" for p in self._processes]

    async def settle_counted(self) -> None:
        """Until every endpoint that counts has everything; others may keep what they have."""

        async def complete() -> bool:
            return not self._missing()

        await until(complete, "everything is delivered")

    def _missing(self, before: float | None = None) -> list[str]:
        accepted = self.ledger.accepted()
        return [
            event_id
            for event_id, at in accepted.items()
            if (before is None or at <= before)
            and any(self.partner.had(name, event_id) is None for name in self.endpoints)
        ]

    # The account

    def expect(self, holds: bool, sentence: str) -> None:
        """Writes down what went wrong, if it did."""
        if not holds:
            self.wrong.append(sentence)

    def expect_all_alive(self) -> None:
        for process in self._processes:
            gone = process.ended.done() and process.pid not in self._ended_on_purpose
            self.expect(not gone, f"a process died: {process.program.name}")

    def _expect_no_death(self) -> None:
        """
        Raises:
            Never: what is waited for can't come, since a process ended that nobody has killed.
        """
        for process in self._processes:
            if process.ended.done() and not self._may_be_gone(process):
                raise Never(str(process.why(f"ended with status {process.ended.result()}, and nobody has asked it to")))

    def _may_be_gone(self, process: Process) -> bool:
        """Ended by the fault, or by itself at a failpoint."""
        return process.pid in self._ended_on_purpose or process.ended.result() == -signal.SIGKILL

    def in_flight_at_most(self) -> int:
        """Requests that can be in flight at once."""
        return SLOTS * len(self.endpoints)

    async def account(self, *, allowed: int | None = None, resumed_within: float | None = None) -> Report:
        """Compares what the producer was told, what the partner got, and what the gateway wrote down.

        ``allowed`` are duplicates; without it, one for each request that was in flight at a disturbance, and never
        more than the attempts that the gateway itself knows to be repeated.
        """
        await self.settle()
        self.expect_all_alive()
        accepted, lost = self.ledger.accepted(), self._missing()
        again = {
            (name, event_id): extra
            for name in self.endpoints
            for event_id, calls in self.partner.calls[name].items()
            if (extra := sum(call.status < 300 for call in calls) - 1) > 0
        }
        duplicates = sum(again.values())
        if allowed is None:
            allowed = min(self.disturbances * self.in_flight_at_most(), await self._repeated_attempts())
        self.expect(not lost, f"{len(lost)} accepted events were lost")
        self.expect(duplicates <= allowed, f"{duplicates} duplicates, and only {allowed} are allowed")
        self._check_bytes()
        await self._check_events(accepted)
        await self._check_order()
        self._note_errors()
        slowest = max(self.resumed, default=None)
        if resumed_within is not None and slowest is not None:
            self.expect(slowest <= resumed_within, f"resumed after {slowest:.1f} s, not within {resumed_within:g} s")
        return Report(
            accepted=len(accepted),
            delivered=len(accepted) - len(lost),
            lost=len(lost),
            duplicates=duplicates,
            allowed=allowed,
            resumed_after=slowest,
            wrong=list(self.wrong),
            notes=list(self.notes),
        )

    def _check_bytes(self) -> None:
        """The same id means the same bytes, for every endpoint and every attempt."""
        digests: dict[str, set[bytes]] = {}
        for name in self.endpoints:
            for event_id, calls in self.partner.calls[name].items():
                digests.setdefault(event_id, set()).update(call.digest for call in calls)
        differ = sum(len(found) > 1 for found in digests.values())
        self.expect(not differ, f"{differ} events came with different bytes")

    async def _check_events(self, accepted: dict[str, float]) -> None:
        """Every event in the database was accepted, and every key has one event."""
        stored = await self.value("SELECT count(*) FROM events WHERE type NOT LIKE 'gateway.%' AND type <> 'old.event'")
        self.expect(stored == len(accepted), f"{len(accepted)} events were accepted and {stored} are stored")
        twice = self.ledger.keys_with_two_events()
        self.expect(not twice, f"{twice} idempotency keys have two events")
        dead = await self.rows(
            "SELECT state, state_reason, count(*) FROM finished_deliveries WHERE state <> 'delivered' "
            "AND endpoint_id = ANY($1::uuid[]) GROUP BY 1, 2",
            list(self.endpoints.values()),
        )
        self.expect(not dead, f"deliveries ended otherwise: {[tuple(row) for row in dead]}")

    async def _check_order(self) -> None:
        """Where order is asked for, an event is first attempted only after the one before it was taken."""
        for name in self.ordered & set(self.endpoints):
            rows = await self.rows(
                "SELECT event_id, ordering_key FROM finished_deliveries WHERE endpoint_id = $1 ORDER BY sequence",
                self.endpoints[name],
            )
            before: dict[int, float] = {}
            wrong = 0
            for event_id, key in rows:
                calls = self.partner.calls[name].get(render_event(event_id), [])
                if not calls or key is None:
                    continue
                wrong += calls[0].at < before.get(key, 0.0)
                before[key] = min(call.at for call in calls if call.status < 300)
            self.expect(not wrong, f"{wrong} events of endpoint {name} came out of order")

    async def finished(self) -> None:
        """Until every delivery that is open now has been settled."""
        now = await self.value("SELECT clock_timestamp()")

        async def none_left() -> bool:
            return not await self.value("SELECT count(*) FROM deliveries WHERE created_at <= $1", now)

        await until(none_left, "what was open is settled")

    async def _repeated_attempts(self) -> int:
        """Attempts beyond the first, less those that the partner itself asked for by failing. What a crash of Postgres
        took of a fan-out isn't counted any more, but recorded."""
        repeated = await self.value(
            "SELECT coalesce(sum(greatest(attempt, (SELECT count(*) FROM attempts WHERE delivery_id = d.id)) - 1), 0) "
            "FROM finished_deliveries d WHERE endpoint_id = ANY($1::uuid[])",
            list(self.endpoints.values()),
        )
        failed = sum(
            call.status >= 300
            for name in self.endpoints
            for calls in self.partner.calls[name].values()
            for call in calls
        )
        return max(int(repeated) - failed, 0)

    def _note_errors(self) -> None:
        """Bugs that the processes have logged: they end nothing, but somebody should look."""
        errors: Counter[str] = Counter()
        for process in self._processes:
            for line in process.said():
                if (error := error_in(line)) is not None:
                    errors[error] += 1
        self.notes += [f"{times} × {line}" for line, times in errors.most_common(5)]


@asynccontextmanager
async def staged(
    database_url: str,
    length: Length,
    code: Path,
    *,
    server: MortalPostgres | None = None,
    links: bool = False,
    workers: int = 2,
    ordered: bool = True,
    settings: dict[str, str] | None = None,
) -> AsyncIterator[Stage]:
    """A stage with one API, some workers, and a partner with two endpoints: one with an order, one without.

    With ``links``, API and workers each reach PostgreSQL through a link of their own.
    """
    stage = Stage(database_url, length, code, server, settings=settings or {})
    with tempfile.TemporaryDirectory(prefix="webhook-gateway-faults-") as directory:
        stage._directory = Path(directory)
        if links:
            parts = urlsplit(database_url)
            stage.api_link, stage.worker_link = (Link(str(parts.hostname), parts.port or 5432) for _ in range(2))
            await stage.api_link.start()
            await stage.worker_link.start()
        await stage.partner.open()
        stage.address = f"http://127.0.0.1:{free_port()}"
        try:
            await _furnish(stage, ordered)
            await asyncio.gather(stage.start_api(), *(stage.start_worker() for _ in range(workers)))
            yield stage
        finally:
            for process in stage._processes:
                process.kill()
            for process in stage._processes:
                await process.ended
            await stage.partner.close()
            for link in (stage.api_link, stage.worker_link):
                if link is not None:
                    await link.close()


async def _furnish(stage: Stage, ordered: bool) -> None:
    async with hospital_on(stage.database_url) as hospital:
        stage.furnished, stage.tenant_id = hospital, hospital.tenant_id
        stage.master_keys = str(hospital.settings.master_keys)
        _, stage.key = await issue_key(hospital.database, hospital.vault, "producer", ["events:write"])
    await stage.add_endpoint("free")
    if ordered:
        await stage.add_endpoint("ordered", ordering="relaxed")


async def until(holds: Callable[[], Awaitable[bool]], what: str, seconds: float = PATIENCE) -> None:
    """Looks again and again.

    Raises:
        Never: it didn't become true in time.
    """
    deadline = monotonic() + seconds
    while not await holds():
        if monotonic() > deadline:
            raise Never(f"never, within {seconds:g} s: {what}")
        await asyncio.sleep(0.05)


async def moment(longest: float = 0.5) -> None:
    """Some time, so that a fault strikes anywhere in the work."""
    await asyncio.sleep(random.uniform(0, longest))


def free_port() -> int:
    """One that no outgoing connection takes while nobody listens."""
    import socket

    for port in random.sample(range(20_000, 30_000), 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise Never("a free port is found")


def render_event(event_id: object) -> str:
    from webhook_gateway.rules import ids

    return ids.render(ids.EVENT, UUID(str(event_id)))


def _through(url: str, link: Link) -> str:
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@{link.address}:{link.port}"))


def error_in(line: str) -> str | None:
    """What a line of a process's log says of an error, in short; None where it says of none."""
    try:
        told = json.loads(line)
    except ValueError:
        return line[:160] if line.startswith(("Traceback", "  File")) else None
    if not isinstance(told, dict) or str(told.get("level")).lower() != "error":
        return None
    return " ".join(str(told[name]) for name in ("message", "stage", "error", "place") if name in told)
