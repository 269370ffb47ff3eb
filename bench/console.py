"""``make bench-console``: every page of the console on ten million deliveries, and what 20 viewers cost at full load.

- ``make bench-console`` fills a database in some minutes, and measures for ten
- ``make bench-console ARGS="--deliveries 200000"`` is a first look

- ``make bench-console ARGS="--only viewers"`` leaves the pages out

Pages are asked for one after the other, each time with other ids, by an administrator and by somebody at a partner,
with searches and filters. Viewers do what the pages have a browser do. What they cost is the CPU of API, worker and
PostgreSQL that their stretches of a load have beyond what its events explain, by the stretches before and after. That
is all that they cost, and its mean is off by two hundredths of a core. Counted beside it is what an API process of
their own uses, and the processes of PostgreSQL that serve it, which is exact, and leaves out what they cost the others.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import statistics
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import httpx
import uvloop

from webhook_gateway.operations.first_start import issue_key
from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER, OF_PATIENTS, Scope
from webhook_gateway.web.console.pages import PAGES

from . import children
from .archive import ACTORS, PATIENT, TARGETS, Archive, fill_archive
from .gateway import Gateway
from .load import Posting, percentiles
from .machine import between, sample
from .pipeline import RAMP, WINDOW, plan
from .report import Goal, Report, judge

MOST_MS, MOST_CORES = 100.0, 0.05
VIEWERS, PAIRS, STRETCH = 20, 16, 10.0
"""Pairs of stretches with and without viewers, and seconds of each: as long as pages wait before they ask again."""
EVERYTHING = (Scope.ADMIN, *OF_PATIENTS)
OURS = {"Sec-Fetch-Site": "same-origin"}
FILTERS = {
    "/console/deliveries": (
        "state=dead",
        "state=pending",
        "state=delivered&type=lab_result.final",
        "type=none.such",
        "endpoint_id={endpoint_id}",
        "endpoint_id={endpoint_id}&type=none.such&state=delivered",
        "subscriber_id={subscriber_id}",
        "subscriber_id={subscriber_id}&state=dead&type=none.such",
        "event_id={event_id}",
        "since={month_ago}",
        "until={month_ago}&state=dead",
    ),
    "/console/events": ("type=lab_result.final", "type=none.such", "until={month_ago}"),
    "/console/audit": (f"actor={ACTORS[7]}", f"target={TARGETS[7]}", "actor=nobody", "target=nothing&actor=nobody"),
    "/console/catalogue": ("q=lab",),
    "/console/partners": (),
    "/console/replays": (),
}
SEARCHES = {
    "/console/search": (
        {"q": "{delivery_id}"},
        {"q": "{event_id}"},
        {"q": "{endpoint_id}"},
        {"q": "bench-0000000007"},
        {"q": PATIENT},
        {"q": "nothing has it"},
    ),
    "/console/disclosures": ({"patient": PATIENT}, {"subscriber_id": "{subscriber_id}"}, {"event_id": "{event_id}"}),
}
LIVE = "/console/live"
WATCHED = ("", "", "/deliveries", "/problems", "/endpoints/{endpoint_id}")
"""What viewers look at, in turns."""
SO_FAR = """
SELECT left(regexp_replace(query, '\\s+', ' ', 'g'), 200) AS query, total_exec_time AS ms, calls,
       shared_blks_hit + shared_blks_read AS pages FROM pg_stat_statements ORDER BY total_exec_time DESC
"""
HEAD = f"{'':12}{'page':<82}{'p50':>7}{'p95':>7}{'api':>7}{'pg':>7}{'statem.':>9}{'pages':>9}"


@dataclass(frozen=True, slots=True)
class Asked:
    """A page with what it is asked; ``form`` is what is posted."""

    path: str
    form: dict[str, str] | None = None
    is_whole_tenants: bool = False

    @property
    def name(self) -> str:
        return self.path if self.form is None else f"{self.path} {' '.join(map('='.join, self.form.items()))}"

    async def ask(self, http: httpx.AsyncClient, turns: Mapping[str, Iterator[str]]) -> httpx.Response:
        """With the next id of each kind."""
        places = {name: next(turns[name]) for name in re.findall(r"{(\w+)}", self.name)}
        path = self.path.format(**places)
        if self.form is None:
            return await http.get(path)
        return await http.post(path, data={name: text.format(**places) for name, text in self.form.items()})


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-console", description="Measures the console.")
    parser.add_argument("--deliveries", type=int, default=10_000_000, help="that have ended; by default ten million")
    parser.add_argument("--times", type=int, default=40, help="that each page is asked for")
    parser.add_argument("--pages", default="", help="only those whose path has this in it; no viewers then")
    parser.add_argument("--only", choices=("pages", "viewers"))
    given = parser.parse_args()
    report = Report()
    only = "pages" if given.pages else given.only
    uvloop.run(measure(report, given.deliveries, given.times, given.pages, only))
    report.say(f"wrote {report.write('console')}")
    goals = [
        Goal(name, name, MOST_MS, partial(Report.get, name=name), at_most=True)
        for name in report.figures
        if "/" in name
    ]
    for name in ("viewers_cores", "viewers_counted"):
        beside = f"cores of {VIEWERS} viewers beside full load"
        goals.append(Goal(name, beside, MOST_CORES, partial(Report.get, name=name), at_most=True))
    met, measured, missed = judge(report, tuple(goals))
    print(f"console: met={met} of={measured} missed={'; '.join(missed) or '-'}")


async def measure(report: Report, deliveries: int, times: int, path: str, only: str | None) -> None:
    report.say("starting PostgreSQL and the receiver")
    gateway = await Gateway.start()
    try:
        began = time.monotonic()
        archive = await fill_archive(gateway, deliveries)
        report.say(
            f"{archive.rows:,} finished deliveries, and what is around them, in {time.monotonic() - began:.0f} s"
        )
        await gateway.start_api()
        await gateway.start_workers()
        await Posting(plan(gateway, "some", 2.0, types=["lab_result.final"], rate=50.0)).notes_after_begun()
        if only != "viewers":
            await _measure_pages(gateway, report, archive, times, path)
        if only != "pages":
            await _measure_viewers(gateway, report, archive)
            await _count_viewers(gateway, report, archive)
    finally:
        await gateway.close()


async def _measure_pages(gateway: Gateway, report: Report, archive: Archive, times: int, path: str) -> None:
    first = sample({})
    as_partner = _signed_in(gateway, OF_A_SUBSCRIBER, subscriber_id=archive.partner_id)
    async with _signed_in(gateway) as people, as_partner as partner:
        report.say(HEAD)
        for who, http, places in (("hospital", people, archive.places), ("partner", partner, archive.of_partner)):
            for asked in _everything():
                if path in asked.path and not (who == "partner" and asked.is_whole_tenants):
                    await _measure_page(gateway, report, http, asked, who, places, times)
        report.strangers("pages", between(first, sample({})).others)


def _everything() -> Iterator[Asked]:
    """Every page that there is, also with what it may be asked for."""
    for page in PAGES:
        for form in SEARCHES.get(page.path, ()) if page.method == "POST" else ():
            yield Asked(page.path, form, page.whole_tenant)
        if page.method == "GET" and page.path != LIVE:  # it never ends
            yield Asked(page.path, None, page.whole_tenant)
            for filters in FILTERS.get(page.path, ()):
                yield Asked(f"{page.path}?{filters}", None, page.whole_tenant)


async def _measure_page(
    gateway: Gateway,
    report: Report,
    http: httpx.AsyncClient,
    asked: Asked,
    who: str,
    there: dict[str, list[str]],
    times: int,
) -> None:
    turns = {name: cycle(some) for name, some in there.items() if some}
    try:
        statuses = {(await asked.ask(http, turns)).status_code for _ in range(2)}  # its statements are planned
    except KeyError as unknown:
        report.say(f"{who:12}{asked.name:<82} not measured: nothing is known for {unknown}")
        return
    api = [] if gateway.api is None else [gateway.api.pid]
    await gateway.connection.execute("SELECT pg_stat_statements_reset()")
    first, took = sample({"api": api}), []
    for _ in range(times):
        began = time.perf_counter()
        answer = await asked.ask(http, turns)
        took.append((time.perf_counter() - began) * 1e3)
        statuses.add(answer.status_code)
    used = between(first, sample({"api": api})).groups["api"] / times * 1e3
    rows = [dict(row) for row in await gateway.connection.fetch(SO_FAR)]
    ms, calls, pages = (sum(row[name] for row in rows) / times for name in ("ms", "calls", "pages"))
    found = percentiles(took, (50, 95))
    odd = "" if statuses <= {200, 303} else f"  {sorted(statuses)}"
    report.figures[f"{who} {asked.name}"] = found["p95"] if max(statuses) < 500 else math.inf
    report.details[f"{who} {asked.name}"] = {"ms": found, "api_ms": used, "dearest": rows[:3]}
    cost = f"{used:>7.1f}{ms:>7.1f}{calls:>9.1f}{pages:>9,.0f}"
    report.say(f"{who:12}{asked.name:<82}{found['p50']:>7.1f}{found['p95']:>7.1f}{cost}{odd}")


async def _measure_viewers(gateway: Gateway, report: Report, archive: Archive) -> None:
    """Alone, and in every second stretch of a load that takes all that there is."""
    async with _viewers(gateway, archive, gateway.port) as tabs:
        await _measure_beside(gateway, report, tabs)


async def _measure_beside(gateway: Gateway, report: Report, tabs: Sequence[Tab]) -> None:
    alone = [await _stretch(gateway, viewers) for viewers in ((), tabs, ())]
    cores = (alone[1].cpu - (alone[0].cpu + alone[2].cpu) / 2) / STRETCH
    report.note("viewers_alone", cores, f"cores of {VIEWERS} viewers while nothing else happens")
    posting = Posting(plan(gateway, "viewers", RAMP + (2 * PAIRS + 1) * STRETCH + 1, window=WINDOW))
    await posting.begun()
    await asyncio.sleep(RAMP)
    first = sample({})
    found = [await _stretch(gateway, tabs if number % 2 else ()) for number in range(2 * PAIRS + 1)]
    others = between(first, sample({})).others
    await posting.notes()
    costs = []
    for before, between_them, after in zip(found[::2], found[1::2], found[2::2], strict=False):
        an_event = (before.cpu + after.cpu) / (before.events + after.events)
        costs.append((between_them.cpu - an_event * between_them.events) / STRETCH)
    events = statistics.median(one.events for one in found) / STRETCH
    error = statistics.stdev(costs) / len(costs) ** 0.5
    note = f"cores of {VIEWERS} beside {events:,.0f} events/s, standard error {error:.3f}: "
    report.note("viewers_cores", statistics.mean(costs), note + " ".join(f"{cost:.3f}" for cost in costs))
    report.note("viewers_polls", sum(one.polls for one in found) / PAIRS / STRETCH, "pages a second that they ask for")
    report.strangers("viewers", others)


async def _count_viewers(gateway: Gateway, report: Report, archive: Archive) -> None:
    """By a process of their own, with what it does while nobody looks."""
    port, console = await gateway.start_console()
    try:
        async with _viewers(gateway, archive, port) as tabs:
            posting = Posting(plan(gateway, "counted", RAMP + 3 * STRETCH + 1, window=WINDOW))
            await posting.begun()
            await _stretch(gateway, tabs)  # its connections are open
            rows = await gateway.connection.fetch("SELECT pid FROM pg_stat_activity WHERE usename = 'console'")
            groups = {"console": [console.pid], "postgres": [row["pid"] for row in rows]}
            first = sample(groups)
            found = [await _stretch(gateway, tabs) for _ in range(2)]
            used = between(first, sample(groups))
            await posting.notes()
    finally:
        children.end(console)
    parts = ", ".join(f"{name} {cpu / used.seconds:.3f}" for name, cpu in used.groups.items())
    if not (events := sum(one.events for one in found) / used.seconds):
        raise RuntimeError("nothing was delivered beside the viewers")
    cores = sum(used.groups.values()) / used.seconds
    report.note("viewers_counted", cores, f"cores of {VIEWERS} by themselves beside {events:,.0f} events/s: {parts}")


@asynccontextmanager
async def _viewers(gateway: Gateway, archive: Archive, port: int) -> AsyncIterator[list[Tab]]:
    turns = {name: cycle(some) for name, some in archive.places.items()}
    async with AsyncExitStack() as stack:
        people = [await stack.enter_async_context(_signed_in(gateway, port=port)) for _ in range(VIEWERS)]
        looked_at = zip(people, cycle(WATCHED), strict=False)
        yield [await _open(http, Asked("/console" + path), turns) for http, path in looked_at]


@dataclass(frozen=True, slots=True)
class Tab:
    """What somebody looks at, asked for again after so many seconds."""

    http: httpx.AsyncClient
    url: str
    every: float
    follows: bool
    """A stream that says when something was counted."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """CPU seconds of API, worker and PostgreSQL; events delivered, and pages looked at."""

    cpu: float
    events: int
    polls: int


async def _stretch(gateway: Gateway, tabs: Sequence[Tab]) -> Stretch:
    groups = {name: pids for name, pids in gateway.groups().items() if name in ("api", "worker", "postgres")}
    polls: list[int] = []
    viewing = [asyncio.create_task(_view(tab, at / len(tabs), polls)) for at, tab in enumerate(tabs)]
    first, before = sample(groups), gateway.receiver.count()
    await asyncio.sleep(STRETCH)
    used, events = between(first, sample(groups)), gateway.receiver.count() - before
    for task in viewing:
        task.cancel()
    failed = [end for end in await asyncio.gather(*viewing, return_exceptions=True) if isinstance(end, Exception)]
    if failed:
        raise failed[0]
    return Stretch(sum(used.groups.values()), events, len(polls))


async def _open(http: httpx.AsyncClient, asked: Asked, turns: Mapping[str, Iterator[str]]) -> Tab:
    """A page, and what it tells a browser to do with it."""
    answer = await asked.ask(http, turns)
    every = re.search(r'data-hx-trigger="every (\d+)s(, stats)?"', answer.text)
    assert every is not None, f"{answer.url} is not kept current"
    return Tab(http, str(answer.url), float(every[1]), follows=every[2] is not None)


async def _view(tab: Tab, phase: float, polls: list[int]) -> None:
    """Asks whenever the stream says so, or where there is none as often as the page says."""
    async for _ in _words(tab) if tab.follows else _ticks(tab, phase):
        answer = await tab.http.get(tab.url, headers={"HX-Request": "true"})
        answer.raise_for_status()
        polls.append(answer.status_code)


async def _words(tab: Tab) -> AsyncIterator[None]:
    async with tab.http.stream("GET", LIVE, headers={"Accept": "text/event-stream"}, timeout=None) as stream:
        stream.raise_for_status()
        async for line in stream.aiter_lines():
            if line == "event: stats":
                yield


async def _ticks(tab: Tab, phase: float) -> AsyncIterator[None]:
    await asyncio.sleep(tab.every * phase)
    while True:
        yield
        await asyncio.sleep(tab.every)


@asynccontextmanager
async def _signed_in(
    gateway: Gateway, scopes: Iterable[str] = EVERYTHING, *, port: int = 0, **restrictions: Any
) -> AsyncIterator[httpx.AsyncClient]:
    _, key = await issue_key(gateway.database, gateway.vault, "at the console", sorted(scopes), **restrictions)
    base = f"http://127.0.0.1:{port or gateway.port}"
    async with httpx.AsyncClient(base_url=base, headers=OURS, trust_env=False, timeout=30) as http:
        answer = await http.post("/console/login", data={"key": key})
        assert answer.status_code == httpx.codes.SEE_OTHER, answer.text
        yield http


if __name__ == "__main__":
    main()
