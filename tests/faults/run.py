"""`make faults`: plays every fault, one after the other, and prints the account of each."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from time import monotonic

from tests.support.postgres import MortalPostgres, Server
from webhook_gateway.host import garbage
from webhook_gateway.store import migrate

from . import on_addressees, on_api, on_database, on_machines, on_operations, on_partners, on_servers, on_workers
from .house import House, copy_code
from .report import HEAD, Report, closing, details, line
from .stage import LONG, SHORT, Length, Never, Skip

Fault = Callable[[House], Awaitable[Report]]

FAULTS: dict[str, Fault] = {
    "F1": on_api.f1_kill_the_api,
    "F2": on_api.f2_kill_the_api_after_commit,
    "F3": on_workers.f3_kill_workers,
    "F4": on_workers.f4_kill_workers_at_failpoints,
    "F5": on_workers.f5_terminate_workers,
    "F6": on_workers.f6_freeze_a_worker,
    "F7": on_database.f7_kill_postgres,
    "F8": on_database.f8_stop_slow_and_silence_postgres,
    "F9": on_database.f9_cut_workers_from_postgres,
    "F10": on_api.f10_lose_the_answer_to_commit,
    "F11": on_database.f11_fill_the_disk,
    "F12": on_api.f12_use_up_the_connections,
    "F13": on_partners.f13_hostile_partners,
    "F14": on_partners.f14_poison,
    "F15": on_workers.f15_set_the_clock_wrong,
    "F16": on_operations.f16_migrate,
    "F18": on_operations.f18_drop_partitions,
    "F19": on_operations.f19_lose_and_rotate_the_key,
    "F20": on_database.f20_leave_a_transaction_open,
    "F21": on_machines.f21_cut_one_machine_off,
    "F22": on_partners.f22_hang,
    "F23": on_servers.f23_change_the_primary,
    "F24": on_addressees.f24_two_insurers,
}
TEMPLATE = "webhook_gateway_faults"


def main() -> int:
    asked = _arguments()
    faults = {name: FAULTS[name] for name in asked.only} if asked.only else FAULTS
    length = SHORT if asked.rounds is None else LONG
    directory = Path(tempfile.mkdtemp(prefix="webhook-gateway-faults-"))
    try:
        with (
            tempfile.TemporaryDirectory(prefix="webhook-gateway-faults-code-") as kept,
            MortalPostgres.start(directory, die_with_parent=True) as server,
        ):
            reports = _play(server, copy_code(Path(kept)), faults, length, asked.rounds or 1, asked.json)
    finally:
        shutil.rmtree(directory)
    if asked.json:
        print(json.dumps([{**asdict(report), "passed": report.passed} for report in reports], indent=1))
    print(closing(reports), file=sys.stderr if asked.json else sys.stdout)
    return 0 if all(report.passed or report.skipped is not None for report in reports) else 1


def _play(
    server: MortalPostgres, code: Path, faults: dict[str, Fault], length: Length, rounds: int, quiet: bool
) -> list[Report]:
    async def prepare() -> House:
        databases = Server(server.url)
        await databases.execute(f'CREATE DATABASE "{TEMPLATE}"')
        await asyncio.to_thread(migrate.upgrade, databases.url_of(TEMPLATE))
        return House(databases, TEMPLATE, length, code, server)

    async def play() -> list[Report]:
        house = await prepare()
        garbage.relax()  # the books keep everything: looking for garbage in them would slow the partners down
        if not quiet:
            print(HEAD, flush=True)
        reports = []
        for _ in range(rounds):
            for name, fault in faults.items():
                reports.append(await play_one(house, name, fault))
                if not quiet:
                    print("\n".join([line(reports[-1]), *details(reports[-1])]), flush=True)
        return reports

    return asyncio.run(play())


async def play_one(house: House, name: str, fault: Fault) -> Report:
    """One fault, whatever it ends with."""
    title, began = (fault.__doc__ or "").strip(), monotonic()
    showing = asyncio.create_task(_show(f"{name} {title}"))
    try:
        report = await fault(house)
    except Skip as reason:
        report = Report(skipped=str(reason))
    except Never as reason:
        report = Report(wrong=[str(reason)])
    except Exception as error:
        report = Report(wrong=[f"{type(error).__name__}: {error}"])
        if os.environ.get("WEBHOOK_GATEWAY_FAULTS_TRACE"):
            raise
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
    report.name, report.title, report.took = name, title, monotonic() - began
    return report


async def _show(what: str) -> None:
    """What is being played, with the seconds so far, on a terminal only."""
    if not sys.stderr.isatty():
        return
    began = monotonic()
    try:
        while True:
            print(f"\r{what} … {monotonic() - began:.0f} s ", end="", file=sys.stderr, flush=True)
            await asyncio.sleep(1)
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--only", type=_names, help="as in F3,F5")
    parser.add_argument(
        "--rounds",
        type=int,
        default=int(os.environ["ROUNDS"]) if os.environ.get("ROUNDS") else None,
        help="full-length rounds (or ROUNDS=n); without it, one short round",
    )
    parser.add_argument("--json", action="store_true", help="the reports as JSON on standard output")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.upper().split(",")
    for name in names:
        if name not in FAULTS:
            raise argparse.ArgumentTypeError(f"there is no fault {name}: choose among {', '.join(FAULTS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
