"""`sign`, `verify` and `listen`, as a partner's developer uses them."""

import json
import secrets
import subprocess
from collections.abc import Callable

import httpx
import pytest
from standardwebhooks import Webhook

from webhook_gateway.crypto import signatures
from webhook_gateway.rules.signing import encode_secret

SECRET = encode_secret(secrets.token_bytes(32))
BODY = '{"id":"evt_1","type":"lab_result.final","data":{"result_id":"r1"}}'
Cli = Callable[..., subprocess.CompletedProcess[str]]


def signed(cli: Cli, body: str = BODY) -> dict[str, str]:
    headers: dict[str, str] = json.loads(
        cli("sign", "--json", "--id", "evt_1", stdin=body, WEBHOOK_SECRET=SECRET).stdout
    )
    return headers


def test_what_sign_signs_an_independent_library_verifies(cli: Cli) -> None:
    assert Webhook(SECRET).verify(BODY, signed(cli))


@pytest.mark.parametrize(
    ("body", "status", "answer"), [(BODY, 0, "valid\n"), (BODY + " ", 1, "not valid: no signature fits")]
)
def test_verify_says_yes_and_no_by_its_exit_code(cli: Cli, body: str, status: int, answer: str) -> None:
    headers = signed(cli)
    arguments = ("--id", headers["webhook-id"], "--timestamp", headers["webhook-timestamp"])
    found = cli("verify", *arguments, "--signature", headers["webhook-signature"], stdin=body, WEBHOOK_SECRET=SECRET)
    assert found.returncode == status
    assert found.stdout.startswith(answer)


def test_verify_says_of_a_test_that_it_is_one(cli: Cli) -> None:
    test = BODY.replace('"data"', '"test":true,"data"')
    headers = signed(cli, test)
    arguments = ("--id", headers["webhook-id"], "--timestamp", headers["webhook-timestamp"])
    found = cli("verify", *arguments, "--signature", headers["webhook-signature"], stdin=test, WEBHOOK_SECRET=SECRET)
    assert found.stdout == "valid, a test\n"


def test_an_old_message_is_not_valid_unless_its_age_is_not_minded(cli: Cli) -> None:
    old = ("--id", "evt_1", "--timestamp", "1700000000")
    signature = cli("sign", *old, "--json", stdin=BODY, WEBHOOK_SECRET=SECRET).stdout
    check = ("verify", *old, "--signature", json.loads(signature)["webhook-signature"])
    assert cli(*check, stdin=BODY, WEBHOOK_SECRET=SECRET).returncode == 1
    assert cli(*check, "--any-age", stdin=BODY, WEBHOOK_SECRET=SECRET).returncode == 0


def test_a_secret_that_cannot_be_one_is_said_to_be_so(cli: Cli) -> None:
    found = cli("sign", "--secret", "hunter2", stdin=BODY)
    assert found.returncode == 2
    assert "whsec_" in found.stderr
    assert "hunter2" not in found.stderr


def test_listen_shows_what_is_signed_and_refuses_what_is_not(
    cli: Cli, start: Callable[..., subprocess.Popen[str]]
) -> None:
    listener = start("listen", "--port", "0", "--json", settings={"WEBHOOK_SECRET": SECRET})
    assert listener.stdout is not None
    assert listener.stderr is not None
    url = listener.stderr.readline().split()[2]

    assert httpx.post(f"{url}/any/path", content=BODY, headers=signed(cli)).status_code == 204
    assert json.loads(listener.stdout.readline()) == {
        "id": "evt_1",
        "valid": True,
        "reason": None,
        "test": False,
        "event": json.loads(BODY),
    }
    test = BODY.replace('"data"', '"test":true,"data"')
    assert httpx.post(url, content=test, headers=signed(cli, test)).status_code == 204
    assert json.loads(listener.stdout.readline())["test"] is True
    assert httpx.post(url, content=BODY + " ", headers=signed(cli)).status_code == 401
    assert json.loads(listener.stdout.readline())["valid"] is False
    assert httpx.post(url, content=b"\xff", headers={"webhook-timestamp": "now"}).status_code == 401
    assert json.loads(listener.stdout.readline())["reason"] == "the header webhook-id is missing"

    listener.terminate()
    assert listener.wait(10) in (0, -15)


def test_a_private_key_signs_and_its_public_key_verifies(cli: Cli) -> None:
    private = signatures.new_private_key()
    public = signatures.public_key_of(private)
    made = cli("sign", "--secret", private, "--id", "evt_1", "--json", stdin=BODY)
    headers = json.loads(made.stdout)
    assert headers["webhook-signature"].startswith("v1a,")
    options = ("--id", "evt_1", "--timestamp", headers["webhook-timestamp"])
    signature = ("--signature", headers["webhook-signature"])
    assert cli("verify", "--secret", public, *options, *signature, stdin=BODY).returncode == 0
    assert cli("verify", "--secret", public, *options, *signature, stdin=BODY + " ").returncode == 1
    refused = cli("sign", "--secret", public, stdin=BODY)
    assert (refused.returncode, "only verifies" in refused.stderr) == (2, True)
