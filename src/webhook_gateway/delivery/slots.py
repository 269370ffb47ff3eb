"""Who may send how much now: the part of a worker that keeps neighbours apart.

An endpoint takes only its own slots, shared between the live workers. Within one worker no endpoint may hold more slots
than are still free (a dynamic threshold, as in shared-memory switches: Choudhury and Hahne, 1998), so however many
neighbours hang, a newcomer finds a free one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

from msgspec import structs

from webhook_gateway.rules.matching import OPERATIONAL, Matcher
from webhook_gateway.rules.model import Delivery, Endpoint, EndpointState, Health, Ordering
from webhook_gateway.rules.outcome import Accepted, Outcome, TimedOut, Unsendable
from webhook_gateway.rules.verdict import Verdict
from webhook_gateway.rules.waiting import may_begin
from webhook_gateway.store.configuration import Snapshot
from webhook_gateway.store.deliveries import Wanted

from .watermark import LAG

HealthChange = tuple[Endpoint, Health, Health]
"""An endpoint, its health as last saved, and as it is now."""
REFILL = 0.02
"""Seconds between two looks at an endpoint whose rate is used up."""
QUICK = 0.02
"""Seconds. An endpoint that answers faster would wait for claims most of the time, so it is leased ahead."""
AHEAD = 14
"""How many times its slots such an endpoint may have leased beyond those under way: 0.3 s of work at most."""
RECENT = 60.0
"""Seconds: what is due to an endpoint that this worker never sent to is no older, or a complete look finds it."""
QUEUED = 0.4
"""Part of the lease's margin that may be spent waiting ahead; fetching a token takes from it, too."""
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_HEALTHY = Health()


Queued = tuple[Delivery, bytes | Unsendable, float]
"""A leased delivery with its body, waiting in memory for a slot until a moment of monotonic time."""


@dataclass(slots=True)
class _Line:
    """What a worker knows of one endpoint that has, or had, something to send."""

    due_at: float | None = None
    """When its first open delivery is due, or None where none is known."""
    touched_at: float = 0.0
    """When that was last learnt from elsewhere than a look into the database, by monotonic time."""
    in_flight: int = 0
    """Slots that are taken: by requests under way, and by those reserved."""
    reserved: int = 0
    """Slots taken for deliveries that are just being claimed or made."""
    queue: deque[Queued] = field(default_factory=deque)
    """Leased ahead, for an endpoint that answers faster than a claim takes."""
    coming: int = 0
    """Leased ahead at birth, and not in the queue yet."""
    duration: float = 1.0
    """Seconds that a request takes: a moving average."""
    health: Health = _HEALTHY
    saved: Health = _HEALTHY
    limit: float = 1e9
    """Adaptive: halved by a timeout, one more with every success."""
    tokens: float = 0.0
    tokens_at: float = 0.0
    floor: datetime = LONG_AGO
    """A due time below which nothing was left when last looked: rows long gone cost a scan as much as others."""


class Slots:
    """The state of one worker's endpoints. Does no I/O; one event loop owns it."""

    def __init__(self, concurrency: int, per_tenant: int | None = None, *, lease_margin: float = 15.0) -> None:
        self._concurrency = concurrency
        self._lease_margin = lease_margin
        self._per_tenant = per_tenant or concurrency
        self._of_tenant: dict[UUID, int] = {}
        self._tenants: dict[UUID, UUID] = {}
        self._asked: dict[UUID, int] = {}
        self._lines: dict[UUID, _Line] = {}
        self._waiting: dict[UUID, _Line] = {}
        self._dirty: set[UUID] = set()
        self._disabling: dict[UUID, int | None] = {}
        self._turn = 0
        self._rank, self._workers = 0, 1
        self._clock_offset = datetime.now(UTC).timestamp() - monotonic()
        self._matcher = Matcher(())
        self.snapshot = Snapshot(0, {}, frozenset(), None)
        self.in_flight = 0
        """Slots taken, of all endpoints together."""
        self._rate_binds = False
        self.knows_time = False
        """Until the database has told it, the time is this machine's, which may be an hour off."""

    # The database's clock, kept going by our monotonic one: a worker whose clock is an hour off changes nothing.

    def now(self) -> float:
        return self._clock_offset + monotonic()

    def set_clock(self, now: float) -> None:
        self._clock_offset = now - monotonic()
        self.knows_time = True

    @property
    def workers(self) -> int:
        return self._workers

    def share_with(self, rank: int, workers: int) -> None:
        """This worker is number ``rank`` (from 0) of the live ones."""
        self._rank, self._workers = rank, workers

    def learn(self, snapshot: Snapshot) -> None:
        """Takes over the endpoints as they are now."""
        if snapshot.version < self.snapshot.version:
            return
        self.snapshot = snapshot
        self._matcher = Matcher(snapshot.endpoints.values())
        for endpoint_id, known_from in list(self._disabling.items()):
            if known_from is not None and snapshot.version >= known_from:
                del self._disabling[endpoint_id]
        self._enforce_disabling()

    def disabled(self, endpoint_ids: Iterable[UUID], version: int) -> None:
        """The configuration says so itself from this version on."""
        self._disabling.update(dict.fromkeys(endpoint_ids, version))

    def _enforce_disabling(self) -> None:
        """A copy of the configuration may be older than our verdict, which is not committed yet."""
        for endpoint_id in self._disabling.keys() & self.snapshot.endpoints.keys():
            endpoint = self.snapshot.endpoints[endpoint_id]
            self.snapshot.endpoints[endpoint_id] = replace(endpoint, state=EndpointState.DISABLED)

    def wants_deaths(self, delivery: Delivery) -> bool:
        """Whether some endpoint wants to hear of this one's death. Never about the gateway's own events: no loops."""
        own = delivery.event_type.startswith(OPERATIONAL)
        return not own and bool(self._matcher.match(delivery.tenant_id, OPERATIONAL + "delivery_dead"))

    # What is due.

    def floors(self) -> dict[UUID, datetime]:
        """The endpoints that have had anything to send, and the due time below which nothing of theirs is left."""
        recent = datetime.fromtimestamp(self.now() - RECENT, UTC)
        unseen = dict.fromkeys(self.snapshot.endpoints.keys() - self._lines.keys(), recent)
        return unseen | {endpoint_id: line.floor for endpoint_id, line in self._lines.items()}

    def expect(self, due: Mapping[UUID, datetime], began: float, among: Collection[UUID] | None = None) -> None:
        """The endpoints with open deliveries, and when the first of each is due: a look into the database.

        ``began`` is when the look began, by monotonic time: what was learnt since is newer than the look. ``among`` are
        the endpoints that were looked at, by default all.
        """
        newer = {
            endpoint_id: line
            for endpoint_id, line in self._waiting.items()
            if line.touched_at >= began or (among is not None and endpoint_id not in among)
        }
        for endpoint_id, line in self._waiting.items():
            if endpoint_id not in newer:
                line.due_at = None
        self._waiting = newer
        for endpoint_id, due_at in due.items():
            self._expect_one(endpoint_id, due_at.timestamp())
        settled = self._settled(began)
        for endpoint_id, line in self._lines.items():
            if among is None or endpoint_id in among:
                line.floor = min(due.get(endpoint_id, settled), settled)

    def touch(self, endpoint_id: UUID, due_at: float | None = None) -> None:
        """Something for the endpoint has just become due, or will be at that time."""
        self._expect_one(endpoint_id, self.now() if due_at is None else due_at).touched_at = monotonic()

    def _expect_one(self, endpoint_id: UUID, due_at: float) -> _Line:
        line = self._line(endpoint_id)
        line.due_at = due_at if line.due_at is None else min(line.due_at, due_at)
        self._waiting[endpoint_id] = line
        return line

    def next_due(self) -> float | None:
        """When something may be sent that can't be yet: it becomes due, or its rate allows it."""
        now = self.now()
        later = [now + REFILL] if self._rate_binds else []
        later += [line.due_at for line in self._waiting.values() if line.due_at is not None and line.due_at > now]
        return min(later, default=None)

    def wanted(self) -> list[Wanted]:
        """The endpoints to claim for, each with how many, in turn. Their slots are reserved until the claim is back."""
        now, free = self.now(), self._concurrency - self.in_flight
        self._rate_binds = False
        if free <= 0 or not self._waiting:
            return []
        wanted: list[Wanted] = []
        in_turn = self._in_turn()
        due = sum(line.due_at is not None and line.due_at <= now for _, line in in_turn)
        each = -(-free // max(due, 1))  # a few for each, so that many are served and their connections stay in use
        for endpoint_id, line in in_turn:
            self._turn += 1  # whoever is not reached is the first the next time
            endpoint = self.snapshot.endpoints.get(endpoint_id)
            if endpoint is None or line.due_at is None or line.due_at > now:
                continue
            count = max(min(self._free_slots(endpoint, line, now), (free - line.in_flight + 1) // 2, each), 0)
            ahead = self._room_ahead(endpoint, line, now) if count or line.in_flight else 0
            if count + ahead > 0:
                lease = endpoint.deadline + self._lease_margin
                wanted.append(Wanted(endpoint_id, count + ahead, line.floor, lease))
                self._reserve(endpoint, line, count)
                self._asked[endpoint_id] = count
                free -= count
            if free <= 0:
                break
        return wanted

    def lease_at_birth(self, endpoint: Endpoint) -> float | None:
        """Takes a slot for a delivery that is about to be made, or a place ahead, and returns its lease in seconds.

        None where it has to wait its turn: others are waiting for the endpoint, or there is no room.
        """
        line, now = self._line(endpoint.id), self.now()
        free = self._concurrency - self.in_flight
        if line.due_at is not None and line.due_at <= now:
            return None
        if min(self._free_slots(endpoint, line, now), (free - line.in_flight + 1) // 2) > 0:
            self._reserve(endpoint, line, 1)
        elif line.in_flight and len(line.queue) + line.coming < self._most_ahead(endpoint, line, now):
            line.coming += 1
        else:
            return None
        return endpoint.deadline + self._lease_margin

    def lease_to_follow(self, endpoint: Endpoint) -> float | None:
        """The lease in seconds for the next delivery of an ordering key, of which one has just ended.

        None where it has to be claimed like all others. No slot is taken: there nearly always is no next one.
        """
        endpoint = self.snapshot.endpoints.get(endpoint.id, endpoint)
        if endpoint.ordering is Ordering.LATEST or endpoint.rate is not None or self.in_flight >= self._concurrency:
            return None
        free = self._free_slots(endpoint, self._line(endpoint.id), self.now())
        return endpoint.deadline + self._lease_margin if free > 0 else None

    def claimed(
        self, wanted: Sequence[Wanted], deliveries: Sequence[Delivery], due_at: Sequence[datetime], began: float
    ) -> None:
        """What a claim brought: who got fewer than wanted has nothing more that is due.

        ``began`` is when the claim began, by monotonic time: what was learnt since is newer.
        """
        got: dict[UUID, list[datetime]] = {}
        for delivery, due in zip(deliveries, due_at, strict=True):
            got.setdefault(delivery.endpoint_id, []).append(due)
        settled = self._settled(began)
        for want in wanted:
            line, dues = self._line(want.endpoint_id), got.get(want.endpoint_id, [])
            self._give_back(want.endpoint_id, max(self._asked.pop(want.endpoint_id) - len(dues), 0))
            if dues:
                line.floor = max(line.floor, min(*dues, settled))
            if len(dues) < want.free and line.touched_at < began:
                line.due_at = None
                self._waiting.pop(want.endpoint_id, None)

    def claim_failed(self) -> None:
        for endpoint_id, count in self._asked.items():
            self._give_back(endpoint_id, count)
        self._asked.clear()

    def unknown(self) -> list[UUID]:
        """Endpoints with open deliveries that the configuration doesn't know: they were deleted meanwhile."""
        return [endpoint_id for endpoint_id in self._waiting if endpoint_id not in self.snapshot.endpoints]

    # What is under way.

    def begin(self, delivery: Delivery, body: bytes | Unsendable) -> bool:
        """Uses a slot that was reserved; where none is left, the delivery queues for the next one that is free."""
        line, endpoint = self._line(delivery.endpoint_id), self.snapshot.endpoints.get(delivery.endpoint_id)
        if not line.reserved and endpoint is not None and self.in_flight < self._concurrency:
            self._reserve(endpoint, line, min(max(self._free_slots(endpoint, line, self.now()), 0), 1))
        if line.reserved:
            line.reserved -= 1
            return True
        line.queue.append((delivery, body, monotonic() + QUEUED * self._lease_margin))
        return False

    def born(self, endpoint_ids: Iterable[UUID]) -> None:
        """What was leased at birth has begun, queues, or was handed back: nothing is coming any more."""
        for endpoint_id in endpoint_ids:
            self._line(endpoint_id).coming = 0

    def next_or_end(self, endpoint_id: UUID, goes_on: bool) -> Queued | None:
        """What follows a request in its slot: the next one that was leased ahead, or None and the slot is free."""
        line, endpoint = self._line(endpoint_id), self.snapshot.endpoints.get(endpoint_id)
        if (
            goes_on
            and endpoint is not None
            and line.queue
            and line.queue[0][2] > monotonic()
            and line.in_flight <= self._allowed(endpoint, line, self.now())
        ):
            return line.queue.popleft()
        self.end(endpoint_id)
        return None

    def end(self, endpoint_id: UUID) -> None:
        """A slot is free again."""
        line = self._line(endpoint_id)
        line.in_flight -= 1
        self.in_flight -= 1
        tenant_id = self._tenants[endpoint_id]
        self._of_tenant[tenant_id] -= 1

    def give_back(self, endpoint_id: UUID) -> None:
        """A reserved slot, or a place ahead, is not needed after all."""
        line = self._line(endpoint_id)
        if line.coming:
            line.coming -= 1
        else:
            self._give_back(endpoint_id, 1)

    def stranded(self, among: Iterable[UUID] | None = None, *, stopping: bool = False) -> list[Delivery]:
        """Takes out what was leased ahead and won't be sent: no request is under way to follow, or it is too late.

        ``among`` are the endpoints to look at, by default all.
        """
        found: list[Delivery] = []
        for line in self._lines.values() if among is None else map(self._line, among):
            while line.queue and (stopping or line.in_flight == 0 or line.queue[0][2] <= monotonic()):
                found.append(line.queue.popleft()[0])
        return found

    def longest_deadline(self) -> float:
        """Seconds that the requests under way may still take."""
        endpoints = (
            self.snapshot.endpoints.get(endpoint_id) for endpoint_id, line in self._lines.items() if line.in_flight
        )
        return max((endpoint.deadline for endpoint in endpoints if endpoint is not None), default=0.0)

    # Health.

    def health(self, endpoint_id: UUID) -> Health:
        return self._line(endpoint_id).health

    def note(self, endpoint: Endpoint, outcome: Outcome, duration: float, verdict: Verdict) -> None:
        """What an attempt taught about the endpoint. One that is to be disabled gets nothing from here on."""
        line, health = self._line(endpoint.id), verdict.health
        line.health = health
        line.duration += (duration - line.duration) / 8
        if verdict.disable is not None:
            self._disabling[endpoint.id] = None
            self._enforce_disabling()
        if _lasting(health) != _lasting(line.saved):
            self._dirty.add(endpoint.id)
        if isinstance(outcome, TimedOut):
            line.limit = max(1.0, min(line.limit, self._share(endpoint, endpoint.slots)) / 2)
        elif isinstance(outcome, Accepted):
            line.limit = min(line.limit + 1, 1e9)

    def learn_health(self, learnt: Mapping[UUID, Health]) -> None:
        """What other workers found out. What we have written ourselves comes back, too, and is no news."""
        for endpoint_id, health in learnt.items():
            line = self._line(endpoint_id)
            if endpoint_id in self._dirty or _lasting(health) == _lasting(line.saved):
                continue
            known = line.health
            line.health = line.saved = structs.replace(
                health,
                window_start=known.window_start,
                window_total=known.window_total,
                window_failed=known.window_failed,
            )

    def changed_health(self) -> list[HealthChange]:
        """What has to be kept."""
        known = self.snapshot.endpoints
        lines = [(known[endpoint_id], self._lines[endpoint_id]) for endpoint_id in self._dirty if endpoint_id in known]
        return [(e, line.saved, line.health) for e, line in lines if _lasting(line.saved) != _lasting(line.health)]

    def health_saved(self, saved: Iterable[HealthChange]) -> None:
        for endpoint, _, health in saved:
            self._lines[endpoint.id].saved = health
            if _lasting(self._lines[endpoint.id].health) == _lasting(health):
                self._dirty.discard(endpoint.id)

    def _reserve(self, endpoint: Endpoint, line: _Line, count: int) -> None:
        line.reserved += count
        line.in_flight += count
        line.tokens = max(line.tokens - count, 0.0)
        self.in_flight += count
        self._tenants[endpoint.id] = endpoint.tenant_id
        self._of_tenant[endpoint.tenant_id] = self._of_tenant.get(endpoint.tenant_id, 0) + count

    def _give_back(self, endpoint_id: UUID, count: int) -> None:
        line = self._line(endpoint_id)
        for _ in range(min(count, line.reserved)):
            line.reserved -= 1
            line.tokens += 1
            self.end(endpoint_id)

    def _line(self, endpoint_id: UUID) -> _Line:
        line = self._lines.get(endpoint_id)
        if line is None:
            line = self._lines[endpoint_id] = _Line()
        return line

    def _settled(self, began: float) -> datetime:
        """A due time below which nothing new comes: a look or a claim that began then has seen all there was."""
        return datetime.fromtimestamp(self._clock_offset + began - LAG, UTC) if self.knows_time else LONG_AGO

    def _in_turn(self) -> list[tuple[UUID, _Line]]:
        """The endpoints that wait, beginning where the last claim ended."""
        waiting = list(self._waiting.items())
        self._turn %= len(waiting)
        return waiting[self._turn :] + waiting[: self._turn]

    def _free_slots(self, endpoint: Endpoint, line: _Line, now: float) -> int:
        free = self._allowed(endpoint, line, now) - line.in_flight
        if endpoint.rate is not None:
            tokens = self._tokens(endpoint.rate, line)
            self._rate_binds = self._rate_binds or tokens < free
            free = min(free, tokens)
        return min(free, self._per_tenant - self._of_tenant.get(endpoint.tenant_id, 0))

    def _allowed(self, endpoint: Endpoint, line: _Line, now: float) -> int:
        """How many requests this worker may have under way to the endpoint."""
        return min(self._share(endpoint, may_begin(endpoint, line.health, now)), int(line.limit))

    def _room_ahead(self, endpoint: Endpoint, line: _Line, now: float) -> int:
        """How many to claim beyond the slots: never a few at a time."""
        most, ahead = self._most_ahead(endpoint, line, now), len(line.queue) + line.coming
        return most - ahead if 2 * ahead <= most else 0

    def _most_ahead(self, endpoint: Endpoint, line: _Line, now: float) -> int:
        """How many to lease beyond the slots: none while anything is wrong."""
        if line.duration > QUICK or line.health.failures_in_a_row or endpoint.rate is not None:
            return 0
        mine = self._share(endpoint, may_begin(endpoint, line.health, now))
        return AHEAD * min(mine, self._concurrency // max(len(self._waiting), 1))

    def _share(self, endpoint: Endpoint, slots: int) -> int:
        """This worker's part of the slots. The parts add up, and who gets the odd one differs by endpoint."""
        place = (self._rank + endpoint.id.int) % self._workers
        return (slots + self._workers - 1 - place) // self._workers

    def _tokens(self, rate: float, line: _Line) -> int:
        """A token bucket that holds one second's worth, at least one."""
        mine, now = rate / self._workers, monotonic()
        line.tokens = min(line.tokens + (now - line.tokens_at) * mine, max(mine, 1.0))
        line.tokens_at = now
        return int(line.tokens)


def _lasting(health: Health) -> tuple[object, ...]:
    """What a restart must not forget; counters alone are not worth a write."""
    times = (health.failing_since, health.open_until, health.held_until)
    return health.openings, *(None if time is None else round(time, 3) for time in times)
