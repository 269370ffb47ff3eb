"""Everything that runs in the demo: started, registered through the public API, and cleared away."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

from webhook_gateway.client import AsyncGateway
from webhook_gateway.crypto.master_keys import make_key_file, read_key_file
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.host import supervisor
from webhook_gateway.host.processes import Process, Program, Tree
from webhook_gateway.operations.first_start import issue_key
from webhook_gateway.store.database import Database

from .partners import Partner
from .screen import Screen

STARTING = 30.0
"""Seconds that a partner has to become ready."""
SCHEDULE = (1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 5.0, 5.0, 5.0, 10.0, 10.0, 10.0)
"""Seconds between attempts: a real partner is given three days, a demo has no such patience."""


class Stage:
    """``directory`` takes all data and logs; ``examples`` is the checkout's top."""

    def __init__(
        self, directory: Path, examples: Path, database_url: str, listener: socket.socket, screen: Screen
    ) -> None:
        self.address = supervisor.address_of(listener)
        self.examples = examples
        self.partners = screen.partners
        self.desk = Partner("claims_desk", (), "the hospital's own")
        self._directory = directory
        self.database_url = database_url
        self._screen = screen
        self._mails = ""
        self._others: list[Process] = []
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()
        environment = {
            "DATABASE_URL": database_url,
            "WEBHOOK_GATEWAY_MASTER_KEY_FILE": str(make_key_file(directory)),
            "WEBHOOK_GATEWAY_DEVELOPMENT": "true",  # http and loopback: the partners are on this machine
            "WEBHOOK_GATEWAY_PUBLIC_DOCS": "true",
            "WEBHOOK_GATEWAY_WORKER_METRICS_PORT": str(min(listener.getsockname()[1] + 1, 65_535)),
        }
        groups = [supervisor.api(1, listener, environment), supervisor.workers(1, environment)]
        self._tree = Tree([[self._logged(program) for program in group] for group in groups], screen.line)
        self._gateway: asyncio.Task[None] | None = None

    async def set(self) -> str:
        """Starts the gateway, the mail server and the claims desk; returns an administrator's key.

        Raises:
            DidNotStart: one of them didn't; the message ends with its log.
        """
        key, desk_key = await self._make_keys()
        self._gateway = asyncio.create_task(self._tree.run(self._ending, self._hurry))
        await supervisor.wait_until_ready(self._tree, self.address)
        sink = self._start("smtp_sink", "examples.partners.smtp_sink", "--smtp-port", "0", environment={})
        self._mails = await _told_after(sink, "smtp on ")
        environment = {"WEBHOOK_SECRET": self.desk.secret, "GATEWAY_URL": self.address, "GATEWAY_API_KEY": desk_key}
        desk = self._start(self.desk.name, "examples.claims_desk", "--port", "0", environment=environment)
        self.desk.url = await _told_after(desk, "listening on ")
        self.desk.is_up = True
        return key

    def open_gateway(self, key: str) -> AsyncGateway:
        return AsyncGateway(self.address, key)

    async def register(self, gateway: AsyncGateway) -> None:
        """Each partner as an administrator would: a subscriber, and an endpoint with what it wants."""
        for partner in self.partners:
            if partner.absent:
                partner.reserved = _reserve_port()
                partner.url = "http://{}:{}".format(*partner.reserved.getsockname())
            else:
                await self._start_partner(partner, port=0)
            subscriber = await gateway.create_subscriber(
                partner.name,
                partner.what,
                event_types=partner.event_types,
                external_id=partner.external_id,
                content=partner.content,
            )
            endpoint = await gateway.create_endpoint(
                subscriber.id,
                f"{partner.url}/webhooks",
                secret=partner.secret,
                # What is about no claim has no payer.
                filter=None if partner.payer_id is None else {"payer_id": [partner.payer_id, {"exists": False}]},
                schedule=SCHEDULE,
            )
            partner.endpoint_id = endpoint.id

    async def bring_back(self, seconds: float) -> None:
        """Starts, after a while, whoever was absent."""
        await asyncio.sleep(seconds)
        for partner in self.partners:
            if partner.reserved is not None:
                port = partner.reserved.getsockname()[1]
                partner.reserved.close()
                await self._start_partner(partner, port)
                self._screen.event(partner, "is back")

    async def leave_one_dead(self, gateway: AsyncGateway) -> None:
        """A partner whose URL has a slip, and what died of it: to be found, put right and sent again."""
        inbox = next(partner for partner in self.partners if partner.name == "doctors_inbox")
        types, content = ["lab_result.final"], {"level": "full"}
        desk = await gateway.create_subscriber("night_desk", "its URL has a slip", event_types=types, content=content)
        await gateway.create_endpoint(desk.id, f"{inbox.url}/webhook", secret=inbox.secret, schedule=SCHEDULE[:1])
        known = await gateway.get(f"/v1/event-types/{types[0]}")
        await gateway.post_event(types[0], known["example"], to=[desk.id])
        deadline = time.monotonic() + STARTING
        while not (await gateway.get("/v1/deliveries", state="dead"))["items"]:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)

    def pid_of(self, name: str) -> int:
        return next(process.pid for process in self._tree.processes() if process.program.name == name)

    async def clear(self, hurry: asyncio.Event) -> None:
        """Stops the API, then the worker, then the partners; ``hurry`` kills what is left."""
        self._ending.set()
        hurrying = asyncio.create_task(self._pass_on(hurry))
        if self._gateway is not None:
            await self._gateway
        await asyncio.gather(*(process.stop() for process in self._others))
        hurrying.cancel()

    async def _make_keys(self) -> tuple[str, str]:
        """An administrator's key, and one for the claims desk that may post insurers' decisions only."""
        vault = Vault(read_key_file(make_key_file(self._directory)))
        database, decisions = Database(self.database_url, connections=2), ["insurance_claim.*"]
        try:
            _, admin = await issue_key(database, vault, "demo", ["admin"])
            _, desk = await issue_key(database, vault, "claims desk", ["events:write"], event_types=decisions)
        finally:
            await database.close()
        return admin, desk

    async def _start_partner(self, partner: Partner, port: int) -> None:
        environment = {
            "WEBHOOK_SECRET": partner.secret,
            "SMTP_ADDRESS": self._mails,
            "CALLBACK_URL": f"{self.desk.url}/webhooks",
            "CALLBACK_SECRET": self.desk.secret,
        }
        module = f"examples.partners.{partner.module or partner.name}"
        process = self._start(partner.name, module, "--port", str(port), *partner.flags, environment=environment)
        partner.url = await _told_after(process, "listening on ")
        partner.is_up = True

    def _start(self, name: str, module: str, *flags: str, environment: dict[str, str]) -> Process:
        data = self._directory / "partners" / name
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = (sys.executable, "-m", module, *flags, "--data", str(data))
        program = Program(name, command, environment, directory=self.examples, patience=10)
        process = Process(self._logged(program))
        self._others.append(process)
        return process

    def _logged(self, program: Program) -> Program:
        return replace(program, log=self._directory / f"{program.name.replace(' ', '-')}.log")

    async def _pass_on(self, hurry: asyncio.Event) -> None:
        await hurry.wait()
        self._hurry.set()
        for process in self._others:
            process.kill()


def _reserve_port() -> socket.socket:
    """Bound but not listening: nobody else gets the port, and whoever connects is refused."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


async def _told_after(process: Process, words: str) -> str:
    """What a program prints behind the words when it is ready.

    Raises:
        DidNotStart: it ended, or said nothing in time.
    """
    deadline = time.monotonic() + STARTING
    while True:
        for line in process.said():
            if line.startswith(words):
                return line.removeprefix(words).strip()
        if process.ended.done():
            raise process.why("did not start")
        if time.monotonic() > deadline:
            raise process.why(f"was not ready within {STARTING:g} s")
        await asyncio.sleep(0.05)
