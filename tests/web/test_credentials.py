"""An endpoint's credentials go in and never come out; of a pair of keys only the public one is given out."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import KeySet

from tests.support.rows import EVERYTHING, store_finished
from tests.web.serving import Api, running
from tests.web.world import make_world, post
from webhook_gateway.crypto import signatures
from webhook_gateway.rules import ids
from webhook_gateway.store import configuration

URL = "https://lab.example.com/in"
CANARY = "c4n4ry-s3cret"
AUTHORIZATIONS = [
    {"kind": "basic", "username": "gw-of-jane-doe", "password": CANARY},
    {"kind": "bearer", "token": CANARY},
    {"kind": "oauth2", "token_url": "https://id.example.com/token", "client_id": "gw", "client_secret": CANARY},
]


async def make(admin: httpx.AsyncClient, **given: Any) -> httpx.Response:
    subscriber = await post(
        admin, "/v1/subscribers", {"name": f"Lab {datetime.datetime.now(datetime.UTC)}", **EVERYTHING}
    )
    body = {"subscriber_id": subscriber["id"], "url": URL, "event_types": ["lab_result.*"], **given}
    return await admin.post("/v1/endpoints", json=body)


def mutual() -> dict[str, str]:
    ca = trustme.CA()
    shown = ca.issue_cert("gateway.example.org")
    return {
        "ca": ca.cert_pem.bytes().decode(),
        "certificate": shown.cert_chain_pems[0].bytes().decode(),
        "key": shown.private_key_pem.bytes().decode(),
    }


@pytest.mark.parametrize("authorization", AUTHORIZATIONS, ids=lambda given: str(given["kind"]))
async def test_an_authorization_reaches_workers_and_is_shown_without_its_secret(
    api: Api, admin: httpx.AsyncClient, authorization: dict[str, str]
) -> None:
    made = await make(admin, authorization=authorization)
    assert made.status_code == 201, made.text
    endpoint = made.json()
    changed = await admin.patch(f"/v1/endpoints/{endpoint['id']}", json={"authorization": authorization})
    audited = await admin.get("/v1/audit")
    for answer in (made, changed, await admin.get(f"/v1/endpoints/{endpoint['id']}"), audited):
        assert answer.is_success
        assert CANARY not in answer.text
    assert "jane" not in audited.text
    assert endpoint["authorization"]["kind"] == authorization["kind"]
    async with api.database.connection() as connection:
        found = await configuration.snapshot(connection, api.vault)
        row = await connection.fetchrow("SELECT * FROM endpoints")
    (known,) = found.endpoints.values()
    assert known.authorization is not None
    assert CANARY not in repr(known)
    assert row is not None
    assert CANARY.encode() not in row["authorization"]
    gone = await admin.patch(f"/v1/endpoints/{endpoint['id']}", json={"authorization": None})
    assert gone.json()["authorization"] is None


async def test_a_token_url_is_judged_like_any_other(admin: httpx.AsyncClient) -> None:
    refused = await make(admin, authorization={**AUTHORIZATIONS[2], "token_url": "https://169.254.169.254/token"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/authorization/token_url"
    assert CANARY not in refused.text


async def test_a_wrong_authorization_is_refused_without_being_quoted(admin: httpx.AsyncClient) -> None:
    for wrong in (
        {"kind": "basic", "username": "a:b", "password": CANARY},
        {"kind": "bearer", "token": f"{CANARY}\r\nx-evil: 1"},
        {"kind": "digest", "password": CANARY},
        {"kind": CANARY, "password": "x"},
        {"kind": "basic", "password": CANARY},
        {"kind": "basic", "username": "a", "password": CANARY, CANARY + "!": 1},
    ):
        refused = await make(admin, authorization=wrong)
        assert refused.status_code == 422, wrong
        assert CANARY not in refused.text


async def test_there_is_one_authorization_header(admin: httpx.AsyncClient) -> None:
    headers = {"Authorization": "Token abc"}
    assert (await make(admin, headers=headers, authorization=AUTHORIZATIONS[0])).status_code == 422
    endpoint = (await make(admin, headers=headers)).json()
    path = f"/v1/endpoints/{endpoint['id']}"
    assert (await admin.patch(path, json={"authorization": AUTHORIZATIONS[0]})).status_code == 422
    both = {"authorization": AUTHORIZATIONS[0], "headers": {}}
    assert (await admin.patch(path, json=both)).status_code == 200
    assert (await admin.patch(path, json={"headers": headers})).status_code == 422


async def test_tls_is_shown_by_its_certificates_facts(admin: httpx.AsyncClient) -> None:
    given = mutual()
    made = await make(admin, tls=given)
    assert made.status_code == 201, made.text
    tls = made.json()["tls"]
    assert "trustme" in tls["ca"][0]["subject"]
    assert len(tls["certificate"]["sha256"]) == 64
    assert "PRIVATE KEY" not in made.text + (await admin.get("/v1/audit")).text


async def test_tls_that_can_not_work_is_refused_where_it_is_wrong(admin: httpx.AsyncClient) -> None:
    given, other = mutual(), mutual()
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    expired = trustme.CA().issue_cert("gateway.example.org", not_before=past, not_after=past)
    wrong: dict[str, dict[str, str]] = {
        "/tls/ca": {"ca": "no PEM"},
        "/tls/key": given | {"key": other["key"]},
        "/tls/certificate": {
            "certificate": expired.cert_chain_pems[0].bytes().decode(),
            "key": expired.private_key_pem.bytes().decode(),
        },
        "/tls": {},
    }
    for pointer, tls in wrong.items():
        refused = await make(admin, tls=tls)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == pointer
    alone = await make(admin, tls={"certificate": given["certificate"]})
    assert alone.json()["errors"][0]["pointer"] == "/tls/key"


async def test_a_ca_that_can_never_verify_a_certificate_is_refused(admin: httpx.AsyncClient) -> None:
    root = trustme.CA()
    intermediate = root.create_child_ca().cert_pem.bytes().decode()
    for ca, rule in ((intermediate, "not_a_root"), (expired_root(), "expired")):
        refused = await make(admin, tls={"ca": ca})
        (fault,) = refused.json()["errors"]
        assert (fault["pointer"], fault["rule"]) == ("/tls/ca", rule)
        made = await make(admin, tls={"ca": ca + root.cert_pem.bytes().decode()})
        assert made.status_code == 201, made.text


def expired_root() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "once a root")])
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, past, past + datetime.timedelta(1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


async def test_of_an_ed25519_pair_only_the_public_key_is_given_out(api: Api, admin: httpx.AsyncClient) -> None:
    made = (await make(admin, signing="ed25519")).json()
    assert made["secret"] is None
    assert made["signing"] == "ed25519"
    rotated = (await admin.post(f"/v1/endpoints/{made['id']}/rotate-secret", json={})).json()
    assert rotated["public_key"] not in {None, made["public_key"]}
    async with api.client(None) as anybody:
        found = (await anybody.get("/.well-known/webhook-gateway/keys", params={"endpoint_id": made["id"]})).json()
    expected = [signatures.jwk_of(public) for public in (rotated["public_key"], made["public_key"])]
    assert found["keys"] == expected
    keys = KeySet.import_key_set(found).keys
    raw = base64.b64decode(made["public_key"].removeprefix("whpk_"))
    assert base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == keys[1].as_dict()["x"]
    assert "d" not in json.dumps([sorted(key) for key in found["keys"]]).replace("kid", "")
    async with api.database.connection() as connection:
        (endpoint,) = (await configuration.snapshot(connection, api.vault)).endpoints.values()
    assert [signatures.public_key_of(secret) for secret in endpoint.secrets] == [
        rotated["public_key"],
        made["public_key"],
    ]


async def test_public_keys_of_what_has_none_are_an_empty_set(api: Api, admin: httpx.AsyncClient) -> None:
    shared = (await make(admin)).json()
    async with api.client(None) as anybody:
        for endpoint_id in (shared["id"], ids.render(ids.ENDPOINT, api.tenant_id)):
            answer = await anybody.get("/.well-known/webhook-gateway/keys", params={"endpoint_id": endpoint_id})
            assert (answer.status_code, answer.json()) == (200, {"keys": []})
        assert (await anybody.get("/.well-known/webhook-gateway/keys")).status_code == 422


async def test_a_partner_of_ed25519_can_not_bring_a_secret(admin: httpx.AsyncClient) -> None:
    own = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw3ZQ3u7Yt3zI="
    assert (await make(admin, signing="ed25519", secret=own)).status_code == 422


async def test_what_a_partner_answered_is_read_with_payload_read_alone_and_audited(
    api: Api, admin: httpx.AsyncClient
) -> None:
    world = await make_world(api, admin, api.tenant_id)
    endpoint_id, event_id = ids.parse(ids.ENDPOINT, world.endpoint_id), ids.parse(ids.EVENT, world.event_id)
    async with api.database.connection() as connection:
        delivery_id = await store_finished(connection, api.tenant_id, endpoint_id, event_id, "dead")
        attempt_id = await connection.fetchval("SELECT id FROM attempts WHERE delivery_id = $1", delivery_id)
        sealed = api.vault.seal(api.tenant_id, "attempts", attempt_id, b"no patient \xff " + CANARY.encode())
        await connection.execute("UPDATE attempts SET response_excerpt = $2 WHERE id = $1", attempt_id, sealed)
    path = f"/v1/deliveries/{ids.render(ids.DELIVERY, delivery_id)}"
    assert (await admin.get(f"{path}/responses")).status_code == 403
    assert CANARY not in (await admin.get(path)).text
    async with api.client(await api.make_key("payload:read")) as officer:
        (item,) = (await officer.get(f"{path}/responses")).json()["items"]
    assert item["excerpt"] == f"no patient � {CANARY}"
    newest = (await admin.get("/v1/audit")).json()["items"][0]
    assert (newest["action"], newest["target"]) == ("responses.read", ids.render(ids.DELIVERY, delivery_id))
    assert CANARY not in json.dumps(newest)


async def test_public_keys_are_asked_for_only_so_often(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from webhook_gateway.web.api import well_known
    from webhook_gateway.web.callers import Bucket

    monkeypatch.setattr(well_known, "_bucket", Bucket(1.0))
    async with running(database_url) as api, api.client(None) as anybody:
        asked = {"endpoint_id": ids.render(ids.ENDPOINT, api.tenant_id)}
        statuses = [(await anybody.get(well_known.PATH, params=asked)).status_code for _ in range(3)]
    assert statuses[0] == 200
    assert 429 in statuses


async def test_a_change_that_gives_a_certificate_without_its_key_is_refused_where_it_is_wrong(
    admin: httpx.AsyncClient,
) -> None:
    endpoint = (await make(admin)).json()
    response = await admin.patch(f"/v1/endpoints/{endpoint['id']}", json={"tls": {"certificate": "0"}})
    assert response.status_code == 422
    assert "/tls/key" in {error["pointer"] for error in response.json()["errors"]}
