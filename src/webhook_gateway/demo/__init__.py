"""A whole gateway with sample partners and a made-up hospital day, each part a process of its own.

    PostgreSQL ─▶ API, worker ─▶ partners (`stage`) ─▶ a day is posted, the ledgers are watched (`day`) ─▶ account

One partner refuses twice before it accepts, one is slow, one is down at first and comes back. Two insurers get their
own claims each, one by a filter and one by their address, and the SMS provider sees no diagnosis. What was lost or came
to somebody else is counted from the partners' own ledgers against what was posted, never from the gateway's word.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from webhook_gateway.host import supervisor
from webhook_gateway.host.embedded_postgres import EmbeddedPostgres
from webhook_gateway.host.processes import watch_signals
from webhook_gateway.operations.sessions import first_link
from webhook_gateway.store import migrate

from .day import Day
from .partners import the_partners
from .screen import Screen
from .stage import Stage

INTERRUPTED = 130


NEEDED = ("aiosmtpd", "fpdf", "standardwebhooks")
"""What the samples import beside the product's own dependencies."""


class NoExamples(Exception):
    """The samples, or what they need, are not installed with the product: the demo runs from a checkout."""


def run(*, ends: bool, seed: int, patients: int, port: int) -> int:
    """Runs the demo to its end; returns the exit status. With ``ends`` it does so by itself.

    Raises:
        NoExamples: there is no checkout of the project around us.
        DidNotStart, EmbeddedPostgresError, AddressTaken: something could not be started.
    """
    examples = find_examples()
    for name in [name for name in os.environ if name.startswith("WEBHOOK_GATEWAY_") or name == "DATABASE_URL"]:
        del os.environ[name]  # whatever this shell is set up for, the demo keeps away from it
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    directory = Path(tempfile.mkdtemp(prefix="webhook-gateway-demo-"))
    directory.chmod(0o711)  # for PostgreSQL, which runs as another account where root starts it
    screen = Screen(the_partners())
    try:
        with supervisor.listen_on("127.0.0.1", port) as listener:
            screen.line("starting PostgreSQL, the API, a worker and seven partners …")
            settings = {"shared_buffers": "64MB", "max_connections": "60"}
            with EmbeddedPostgres.start(directory / "postgres", settings=settings, die_with_parent=True) as server:
                migrate.upgrade(server.url)
                stage = Stage(directory, examples, server.url, listener, screen)
                status = asyncio.run(_play(stage, screen, ends=ends, seed=seed, patients=patients))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    screen.conclude()
    return status


def find_examples() -> Path:
    """The top of the checkout, in which the package ``examples`` is.

    Raises:
        NoExamples: it is nowhere near, or what it needs isn't installed.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise NoExamples(f"the sample partners need {', '.join(missing)}: pip install 'hms-webhook-gateway[demo]'")
    for top in (Path(__file__).parents[3], Path.cwd()):
        if (top / "examples" / "hospital_day.py").is_file():
            return top
    raise NoExamples(
        "the demo needs the sample partners in examples/, which are not part of the installed package: "
        "run it from a checkout of the project, with `make demo`"
    )


async def _play(stage: Stage, screen: Screen, *, ends: bool, seed: int, patients: int) -> int:
    until, hurry = watch_signals()
    interrupted = asyncio.create_task(until.wait())
    playing = asyncio.create_task(_acts(stage, screen, ends=ends, seed=seed, patients=patients))
    try:
        await asyncio.wait((playing, interrupted), return_when=asyncio.FIRST_COMPLETED)
        if playing.done():
            return playing.result()
        return INTERRUPTED if ends else 0
    finally:
        interrupted.cancel()
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        screen.close()
        await stage.clear(hurry)


async def _acts(stage: Stage, screen: Screen, *, ends: bool, seed: int, patients: int) -> int:
    key = await stage.set()
    async with stage.open_gateway(key) as gateway:
        await stage.register(gateway)
        day = Day(stage, screen, gateway)
        screen.open()
        whole = await day.live_through(seed, patients, pause=0.0 if ends else 0.1)
        account = await day.account()
        screen.closing = str(account)
        if ends:
            return 0 if whole and account.is_whole(len(day.expected())) else 1
        screen.close()
        await stage.leave_one_dead(gateway)
        link = await first_link(stage.database_url, stage.address)
        screen.explain(stage.address, key, link, stage.pid_of("worker 1"))
        await day.go_on_watching()
    raise AssertionError("unreachable: watching ends only with the demo")
