"""Each sample receiver, in each language, takes what a gateway delivers and nothing else."""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from tests.examples.gateways import RunningGateway
from webhook_gateway.client import Accepted, Event, Gateway

CHECKOUT = Path(__file__).parents[2]
RECEIVERS = CHECKOUT / "examples" / "receivers"
VECTOR = json.loads((CHECKOUT / "tests" / "data" / "signature-vector.json").read_text())
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()

Command = list[str]


def python(_: Path) -> Command:
    return [sys.executable, str(RECEIVERS / "receiver.py")]


def javascript(_: Path) -> Command:
    return ["node", str(RECEIVERS / "receiver.js")]


def php(folder: Path) -> Command:
    return ["php", "-S", (folder / "address").read_text(), str(RECEIVERS / "receiver.php")]


def go(folder: Path) -> Command:
    program = folder / "receiver"
    if not program.exists():
        run("go", "build", "-o", str(program), str(RECEIVERS / "receiver.go"), GOFLAGS="-mod=mod")
    return [str(program)]


def java(folder: Path) -> Command:
    if not (folder / "Receiver.class").exists():
        run("javac", "-d", str(folder), str(RECEIVERS / "Receiver.java"))
    return ["java", "-cp", str(folder), "Receiver"]


def csharp(folder: Path) -> Command:
    program = folder / "receiver.exe"
    if not program.exists():
        run("mcs", f"-out:{program}", str(RECEIVERS / "Receiver.cs"))
    return ["mono", str(program)]


def needs(program: str, how: Callable[[Path], Command]) -> Any:
    missing = pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program} for {how.__name__}")
    return pytest.param(how, id=how.__name__, marks=missing)


LIVE = [
    needs(sys.executable, python),
    needs("node", javascript),
    needs("php", php),
    needs("go", go),
    needs("javac", java),
    needs("mcs", csharp),
]


def test_each_receiver_is_short_enough_to_be_read_before_it_is_copied() -> None:
    lengths = {file.name: len(file.read_text().splitlines()) for file in RECEIVERS.glob("[rR]eceiver.*")}
    assert len(lengths) == 7
    assert all(length <= 60 for length in lengths.values()), lengths


@pytest.mark.slow
@pytest.mark.xdist_group("samples against a gateway")
@pytest.mark.parametrize("language", LIVE)
def test_a_hundred_deliveries_a_changed_secret_a_duplicate_and_forgeries(
    language: Callable[[Path], Command], gateway: RunningGateway, tmp_path: Path
) -> None:
    partner = SampleReceiver(language, tmp_path)
    with Gateway(gateway.url, gateway.key) as hospital:
        subscriber = hospital.create_subscriber(
            f"{language.__name__} {tmp_path}", event_types=["lab_order.placed"], content="full"
        )
        endpoint = hospital.create_endpoint(subscriber.id, partner.url)
        assert endpoint.secret is not None
        with partner.running(endpoint.secret) as lines:
            sent = place_orders(hospital, 50)
            assert settled(lines, 50) == {"accepted": sent}

            # The old secret goes on for a while: each request carries two signatures.
            answer = hospital.post(f"/v1/endpoints/{endpoint.id}/rotate-secret", {"overlap_seconds": 3600})
            later = place_orders(hospital, 25)
            assert settled(lines, 25) == {"accepted": later}
            tried = hospital.post(f"/v1/endpoints/{endpoint.id}/test")["event_id"]
            assert settled(lines, 1) == {"test": {tried}}, "known as a test, and not kept"

        with partner.running(answer["secret"]) as lines:
            last = place_orders(hospital, 25)
            assert settled(lines, 25) == {"accepted": last}
            assert len(sent | later | last) == 100

            # A restart later it still knows what it has had.
            again = min(sent)
            (delivery,) = hospital.get("/v1/deliveries", endpoint_id=endpoint.id, event_id=again)["items"]
            hospital.post(f"/v1/deliveries/{delivery['id']}/replay")
            assert settled(lines, 1) == {"duplicate": {again}}

            forged = forgeries(answer["secret"])
            for headers, body in forged:
                assert httpx.post(partner.url, headers=headers, content=body, trust_env=False).status_code == 401
            assert settled(lines, len(forged)) == {"refused": {""}}
        hospital.post(f"/v1/endpoints/{endpoint.id}/pause")


@pytest.mark.skipif(shutil.which("ruby") is None, reason="needs ruby")
def test_the_rack_application_takes_what_is_signed_once_and_nothing_else(tmp_path: Path) -> None:
    requests = [*forgeries(VECTOR["secret"]), request(VECTOR["secret"]), request(VECTOR["secret"])]
    other = request(OTHER_SECRET)[0]["webhook-signature"]
    headers, body = request(VECTOR["secret"])
    two = {**headers, "webhook-id": "evt_1", "webhook-signature": f"{other} {headers['webhook-signature']}"}
    test = request(VECTOR["secret"], test=True)
    said = rack([*requests, test, (two, body)], tmp_path)
    refused = [(401, "refused")] * len(forgeries(""))
    kept = [(204, "accepted evt_1"), (204, "duplicate evt_1")]
    assert said == [*refused, *kept, (204, "test evt_1"), (204, "duplicate evt_1")]
    assert [file.read_bytes() for file in (tmp_path / "inbox").iterdir()] == [body]


@pytest.mark.skipif(shutil.which("ruby") is None, reason="needs ruby")
def test_the_rack_application_verifies_the_example_of_the_specification() -> None:
    script = (
        "v = JSON.parse(STDIN.read); r = Receiver.new(v['secret'], Dir.mktmpdir);"
        "i, t, s, b = v.values_at('id', 'timestamp', 'signature', 'body');"
        "[0, 300, 301].each { |off| p r.verify(i, t.to_s, s, b, t + off) }; p r.verify(i, t.to_s, s, b + ' ', t)"
    )
    assert ruby(script, json.dumps(VECTOR)) == ["true", "true", "false", "false"]


class SampleReceiver:
    """A receiver of one language, with an inbox that outlives its process and an address that stays."""

    def __init__(self, language: Callable[[Path], Command], folder: Path) -> None:
        self.language, self.folder, self.address = language, folder, f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}/webhooks"
        (folder / "address").write_text(self.address)
        (folder / "inbox").mkdir()

    @contextmanager
    def running(self, secret: str) -> Iterator[Iterator[str]]:
        """What it prints, line by line, once it listens."""
        inbox = self.folder / ("inbox.db" if self.language in (python, php) else "inbox")
        env = {"WEBHOOK_SECRET": secret, "PORT": self.address.partition(":")[2], "INBOX": str(inbox)}
        with subprocess.Popen(
            self.language(self.folder),
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert any(re.search(f"(listening|Server).*{self.address}", line) for line in process.stdout)
                yield process.stdout
            finally:
                process.terminate()


def settled(lines: Iterator[str], count: int) -> dict[str, set[str]]:
    """What it says of the next ``count`` requests: the ids by what it did with them.

    One that is sent again at once is no further request: delivery is at least once.
    """
    found: dict[str, set[str]] = {}
    for line in lines:
        # What several threads print at once may stand in one line.
        for what, event_id in re.findall(r"(accepted|duplicate|refused|test)(?: (evt_\w{26}))?", line):
            if what == "duplicate" and event_id in found.get("accepted", ()):
                continue
            found.setdefault(what, set()).add(event_id)
            count -= 1
        if count == 0:
            return found
    raise AssertionError(f"it ended, {count} requests early")


def place_orders(hospital: Gateway, count: int) -> set[str]:
    """The ids of the events."""
    patient = {"patient_id": "pat_1", "ordering_practitioner_id": "prac_1", "note": "Müller, 4.10"}
    orders = [{"order_id": f"ord_{time.monotonic_ns()}_{number}", **patient} for number in range(count)]
    results = hospital.post_events(Event("lab_order.placed", order) for order in orders)
    return {result.id for result in results if isinstance(result, Accepted)}


def request(
    secret: str, *, age: int = 0, spoil: bytes = b"", signature: str = "", test: bool = False
) -> tuple[dict[str, str], bytes]:
    """A request as the specification's library signs it, so many seconds ago; ``spoil`` is added after signing."""
    moment, body = int(time.time()) - age, '{"id":"evt_1","type":"lab_order.placed","data":{}}'
    if test:
        body = body.replace('"data"', '"test":true,"data"')
    signature = signature or Webhook(secret).sign("evt_1", datetime.fromtimestamp(moment, UTC), body)
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(moment), "webhook-signature": signature}
    return headers, body.encode() + spoil


def forgeries(secret: str) -> list[tuple[dict[str, str], bytes]]:
    """By somebody else, changed on the way, too old, from the future, without a signature that is one, with nothing."""
    secret = secret or OTHER_SECRET
    return [
        request("whsec_" + base64.b64encode(bytes(24)).decode()),
        request(secret, spoil=b" "),
        request(secret, age=310),
        request(secret, age=-310),
        request(secret, signature="v1,AAAA v1 nonsense"),
        ({}, b"{}"),
    ]


def rack(requests: list[tuple[dict[str, str], bytes]], folder: Path) -> list[tuple[int, str]]:
    """Status and words of the Rack application for each request."""
    given = [
        {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()} | {"body": body.decode()}
        for headers, body in requests
    ]
    script = (
        f"r = Receiver.new({VECTOR['secret']!r}, {str(folder / 'inbox')!r});"
        "JSON.parse(STDIN.read).each { |e| puts r.call(e.merge('rack.input' => StringIO.new(e['body'])))[0] }"
    )
    lines = ruby(script, json.dumps(given))
    return [(int(status), said) for said, status in zip(lines[::2], lines[1::2], strict=True)]


def ruby(script: str, given: str) -> list[str]:
    libraries = ["-rjson", "-rstringio", "-rtmpdir", f"-r{RECEIVERS / 'receiver.rb'}"]
    ran = subprocess.run(["ruby", *libraries, "-e", script], input=given, check=True, capture_output=True, text=True)
    return ran.stdout.splitlines()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def run(*command: str, **env: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, **env})
