"""Operators are mailed a trouble once, and its end once, by a real server over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from tests.support.hospital import Hospital
from tests.support.mail_server import MailServer, mail_server
from tests.support.partner import Partner, status
from webhook_gateway import telemetry
from webhook_gateway.delivery.notices import tell
from webhook_gateway.delivery.registry import Registry
from webhook_gateway.rules import ids
from webhook_gateway.settings import Settings
from webhook_gateway.store.configuration import Snapshot

FAILING = """
INSERT INTO endpoint_health (endpoint_id, tenant_id, failures_in_a_row, failing_since, open_until)
VALUES ($1, $2, 5, now() - interval '11 minutes', now() + interval '1 minute')
"""
WELL = "UPDATE endpoint_health SET failing_since = NULL, open_until = NULL"
TRY_AGAIN = "UPDATE notices SET claimed_until = now() - interval '1 second'"


@pytest.fixture
async def mails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MailServer]:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with mail_server(tmp_path) as found:
        yield found


async def tell_all(hospital: Hospital, mails: MailServer, *, paused: bool = False, **changes: object) -> None:
    """A round of two workers at once."""
    settings = hospital.settings.model_copy(
        update={"public_url": "https://gateway.hospital.example/", **mails.settings, **changes}
    )
    registry = Registry()
    registry.learn(Snapshot(1, {}, frozenset(), None, is_paused=paused))
    await asyncio.gather(*(tell(settings, hospital.database, registry) for _ in range(2)))


async def failing(hospital: Hospital) -> UUID:
    endpoint_id = await hospital.endpoint(url="https://lab.example/in?token=secret")
    await hospital.change(FAILING, endpoint_id, hospital.tenant_id)
    return endpoint_id


async def test_an_endpoint_in_trouble_is_told_once_by_two_workers_and_so_is_its_recovery(
    hospital: Hospital, mails: MailServer
) -> None:
    endpoint_id = await failing(hospital)
    for _ in range(3):
        await tell_all(hospital, mails)
    (message,) = mails.texts()
    assert message.startswith("endpoint failing: Laboratory, https://lab.example/in\n")
    assert f"https://gateway.hospital.example/console/endpoints/{ids.render(ids.ENDPOINT, endpoint_id)}" in message
    assert "secret" not in message
    assert mails.messages[0]["to"] == "operators@hospital.example, night@hospital.example"
    assert mails.messages[0]["auto-submitted"] == "auto-generated"

    await hospital.change(WELL)
    for _ in range(3):
        await tell_all(hospital, mails)
    _, over = mails.texts()
    assert over.startswith("Over: endpoint failing: Laboratory")
    assert await hospital.count("notices") == 0


DIED = """
INSERT INTO attempt_stats
SELECT 0, date_trunc('minute', now()), $2, $1, 'rejected', 500, NULL, gen_random_uuid(), now(), now(), $1, '{1}', 1, 1
"""
A_KEY = """
INSERT INTO api_keys (id, tenant_id, name, prefix, hash, scopes, expires_at)
VALUES ($1, $2, 'the laboratory', 'whk_x', 'x', '{}', now() + interval '13 days')
"""
OF_IT = "WHERE id = $1 AND tenant_id = $2"
TROUBLES = {
    "endpoint failing": (FAILING, f"UPDATE endpoints SET state = 'paused' {OF_IT}"),
    "endpoint disabled": (
        f"UPDATE endpoints SET state = 'disabled', state_changed_at = now() {OF_IT}",
        f"UPDATE endpoints SET state = 'enabled', state_changed_at = now() {OF_IT}",
    ),
    "deliveries dead": (
        DIED,
        "UPDATE attempt_stats SET begins = begins - interval '1 hour' WHERE about_id = $1 AND tenant_id = $2",
    ),
    "secret expiring": (
        "UPDATE endpoint_secrets SET expires_at = now() + interval '1 day' WHERE endpoint_id = $1 AND tenant_id = $2",
        "DELETE FROM endpoint_secrets WHERE endpoint_id = $1 AND tenant_id = $2",
    ),
    "key expiring": (A_KEY, f"UPDATE api_keys SET revoked_at = now() {OF_IT}"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_each_kind_of_trouble_is_one_mail_and_its_end_another(
    hospital: Hospital, mails: MailServer, trouble: str
) -> None:
    endpoint_id, (begin, end) = await hospital.endpoint(), TROUBLES[trouble]
    for statement, told in ((begin, trouble), (end, f"Over: {trouble}")):
        await hospital.change(statement, endpoint_id, hospital.tenant_id)
        before = len(mails.messages)
        for _ in range(3):
            await tell_all(hospital, mails)
        (message,) = mails.texts()[before:]
        assert message.startswith(f"{told}: ")
    assert await hospital.count("notices") == 0


async def test_however_many_deliveries_die_it_is_one_mail(
    hospital: Hospital, mails: MailServer, open_partner: Callable[..., Awaitable[Partner]]
) -> None:
    there = await open_partner(otherwise=status(500))
    await hospital.endpoint(url=there.url(), schedule=[])
    for dead in (4, 8):  # ten would open the breaker
        await hospital.post(times=4)
        async with hospital.worker():
            await hospital.until("SELECT FROM finished_deliveries WHERE state = 'dead' HAVING count(*) = $1", dead)
        await tell_all(hospital, mails)
    (message,) = mails.texts()
    assert message.startswith("deliveries dead: Laboratory")


@pytest.mark.parametrize(
    ("minutes", "is_open", "is_told"), [(9, True, 0), (11, True, 1), (59, False, 0), (61, False, 1)]
)
async def test_a_failing_endpoint_is_told_after_ten_minutes_with_an_open_breaker_and_else_after_an_hour(
    hospital: Hospital, mails: MailServer, minutes: int, is_open: bool, is_told: int
) -> None:
    await failing(hospital)
    await hospital.change(
        "UPDATE endpoint_health SET failing_since = now() - make_interval(mins => $1),"
        " open_until = CASE WHEN $2 THEN now() END",
        minutes,
        is_open,
    )
    await tell_all(hospital, mails)
    assert len(mails.messages) == is_told


async def test_whatever_begins_at_the_same_time_is_one_message(hospital: Hospital, mails: MailServer) -> None:
    one, other = await hospital.endpoint(), await hospital.endpoint(state="disabled")
    await hospital.change("UPDATE endpoints SET state_changed_at = now() WHERE id = $1", other)
    await hospital.change(
        "UPDATE endpoint_secrets SET expires_at = now() + interval '1 day' WHERE endpoint_id = $1", one
    )
    await hospital.change(A_KEY, uuid7(), hospital.tenant_id)
    for about in (one, hospital.tenant_id):
        await hospital.change(DIED, about, hospital.tenant_id)
    await tell_all(hospital, mails)
    (message,) = mails.texts()
    assert " (and 3 more)\n" in message
    for said in (
        "endpoint disabled: Laboratory, https://partner.example/hook",
        "secret expiring: Laboratory",
        "key expiring: the laboratory",
        "deliveries dead: Laboratory",
        "/console/keys/key_",
    ):
        assert said in message
    await tell_all(hospital, mails)
    assert len(mails.messages) == 1


async def test_what_the_server_does_not_take_is_counted_and_told_later_unless_it_is_over(
    hospital: Hospital, mails: MailServer
) -> None:
    await failing(hospital)
    failed = telemetry.notices.labels("failed")
    before, mails.refuses = failed._value.get(), True
    await tell_all(hospital, mails)
    assert failed._value.get() == before + 1
    mails.refuses = False
    await tell_all(hospital, mails)
    assert mails.messages == []  # it is tried again in two minutes
    await hospital.change(TRY_AGAIN)
    await tell_all(hospital, mails)
    assert len(mails.messages) == 1


async def test_a_trouble_that_is_over_before_anybody_was_told_of_it_is_never_told(
    hospital: Hospital, mails: MailServer
) -> None:
    await failing(hospital)
    mails.refuses = True
    await tell_all(hospital, mails)
    mails.refuses = False
    await hospital.change(WELL)
    await hospital.change(TRY_AGAIN)
    await tell_all(hospital, mails)
    assert mails.messages == []
    assert await hospital.count("notices") == 0


async def test_a_trouble_that_comes_back_before_its_end_was_told_goes_on(hospital: Hospital, mails: MailServer) -> None:
    endpoint_id = await failing(hospital)
    await tell_all(hospital, mails)
    mails.refuses = True
    await hospital.change(WELL)
    await tell_all(hospital, mails)
    await hospital.change(TRY_AGAIN)
    await hospital.change(f"DELETE FROM endpoint_health WHERE endpoint_id = '{endpoint_id}'")
    await hospital.change(FAILING, endpoint_id, hospital.tenant_id)
    mails.refuses = False
    await tell_all(hospital, mails)
    assert len(mails.messages) == 1


async def test_no_password_goes_to_a_server_without_tls_or_with_somebody_elses_certificate(
    hospital: Hospital, mails: MailServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await failing(hospital)
    (tmp_path / "plain").mkdir()
    async with mail_server(tmp_path / "plain", tls="none") as plain:
        await tell_all(hospital, plain, smtp_tls="starttls")
        assert plain.messages == []
        await hospital.change(TRY_AGAIN)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "plain" / "ca.pem"))
        await tell_all(hospital, mails)
        assert mails.messages == []
        await hospital.change(TRY_AGAIN)
        await tell_all(hospital, plain, smtp_tls="none")
        assert len(plain.messages) == 1


async def test_nobody_is_told_while_sending_as_a_whole_is_paused_as_in_a_copy_of_the_database(
    hospital: Hospital, mails: MailServer
) -> None:
    await failing(hospital)
    await tell_all(hospital, mails, paused=True)
    assert await hospital.count("notices") == 0
    await tell_all(hospital, mails)
    assert len(mails.messages) == 1


async def test_implicit_tls_works_too(hospital: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    await failing(hospital)
    async with mail_server(tmp_path, tls="implicit") as mails:
        await tell_all(hospital, mails)
    assert len(mails.messages) == 1


async def test_a_worker_tells_and_without_a_mail_server_it_looks_for_nothing(
    hospital: Hospital, mails: MailServer
) -> None:
    await failing(hospital)
    async with hospital.worker():
        await hospital.post()
        await hospital.until("SELECT FROM outbox HAVING count(*) = 0")
    assert await hospital.count("notices") == 0
    async with hospital.worker(**mails.settings):
        await hospital.until("SELECT FROM notices WHERE state = 'told'")
    assert len(mails.messages) == 1


@pytest.mark.parametrize(
    "wrong", [{"smtp_to": ()}, {"smtp_from": None}, {"smtp_to": ("operators",)}, {"smtp_from": "A <a@b.example>"}]
)
def test_a_server_without_addresses_is_refused(wrong: dict[str, object]) -> None:
    right = {"smtp_host": "mail.example", "smtp_from": "a@b.example", "smtp_to": ("c@d.example",)}
    Settings(**right)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="SMTP_TO"):
        Settings(**{**right, **wrong})  # type: ignore[arg-type]
