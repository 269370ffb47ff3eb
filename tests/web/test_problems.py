"""Errors are problems: they say what to do, and never what was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from tests.web.serving import Api, running, serve
from webhook_gateway.rules import api_keys
from webhook_gateway.store import subscribers
from webhook_gateway.web.api.schemas.shapes import MEANINGS

SECRET_VALUE = "Jane-Doe-1961-04-17"


def check_problem(response: httpx.Response, status: int, name: str) -> dict[str, Any]:
    """What holds for every error."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"urn:problem:webhook-gateway:{name}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert SECRET_VALUE not in response.text
    return problem


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": 5}, "/name"),
        ({"name": SECRET_VALUE * 20}, "/name"),
        ({}, "/name"),
        ({"name": "Lab", "description": [SECRET_VALUE]}, "/description"),
        ({"name": "Lab", "diagnosis": SECRET_VALUE}, "/diagnosis"),
        ({"name": "Lab", "Jane Doe, born 1961": SECRET_VALUE}, "/*"),
        ({"name": "\x00"}, "/name"),
        ({"name": "a\x9b2Jb"}, "/name"),
        ({"name": "a", "description": "\u202etxt.exe"}, "/description"),
        ([SECRET_VALUE], ""),
        (SECRET_VALUE, ""),
        (None, ""),
    ],
)
async def test_a_fault_has_a_pointer_and_a_remedy_but_no_value(
    admin: httpx.AsyncClient, body: object, pointer: str
) -> None:
    response = await admin.post(
        "/v1/subscribers", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    problem = check_problem(response, 422, "invalid-request")
    assert [fault["pointer"] for fault in problem["errors"]] == [pointer]
    assert all(fault["rule"] and fault["remedy"] for fault in problem["errors"])


async def test_every_pattern_that_text_may_break_is_told_in_words(admin: httpx.AsyncClient) -> None:
    response = await admin.post("/v1/event-types", json={"name": "Dialysis", "schema": {}, "example": {}})
    (fault,) = check_problem(response, 422, "invalid-request")["errors"]
    assert fault["remedy"] == "Give words of a-z, 0-9 and _, joined by dots, as in lab_result.final"
    patterns = set(patterns_in((await admin.get("/openapi.json")).json()))
    judged_elsewhere = {"^-?[0-9]{1,19}$", "^[a-z0-9_.]+$", "^[!-~]+$"}  # in paths, and a header
    typed_ids = {pattern for pattern in patterns if pattern.endswith("_[0-7][0-9a-hjkmnp-tv-z]{25}$")}
    assert patterns - judged_elsewhere - typed_ids <= MEANINGS.keys()


def patterns_in(part: Any) -> Iterator[str]:
    match part:
        case dict():
            if isinstance(part.get("pattern"), str):
                yield part["pattern"]
            for value in part.values():
                yield from patterns_in(value)
        case list():
            for value in part:
                yield from patterns_in(value)
        case _:
            pass


async def test_a_faulty_parameter_is_named(admin: httpx.AsyncClient) -> None:
    for query in (
        {"limit": SECRET_VALUE},
        {"limit": "201"},
        {"state": SECRET_VALUE},
        {"endpoint_id": SECRET_VALUE},
        {"since": "yesterday"},
        {"since": "2026-11-23T08:00:00"},
        {"cursor": "A"},
        {"cursor": "*"},
        {SECRET_VALUE: "x"},
    ):
        problem = check_problem(await admin.get("/v1/deliveries", params=query), 422, "invalid-request")
        named = problem["errors"][0].get("parameter")
        assert named == (next(iter(query)) if SECRET_VALUE not in query else named)


async def test_a_body_that_is_no_json_is_malformed(admin: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"{", b'{"name": "Jane-Doe-1961-04-17}', b"\xff\xfe\xfd", b"[" * 50_000, b'{"name": nope}'):
        response = await admin.post("/v1/subscribers", content=body, headers=headers)
        problem = check_problem(response, 400, "malformed-json")
        assert ("nested too deep" in problem["detail"]) == body.startswith(b"[")


async def test_a_body_of_another_kind_is_refused(admin: httpx.AsyncClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"):
        for path in ("/v1/subscribers", "/v1/events"):
            response = await admin.post(path, content=b"{}", headers={"Content-Type": kind})
            check_problem(response, 415, "unsupported-media-type")
    response = await admin.post("/v1/subscribers", content=b'{"name": "Lab"}')
    check_problem(response, 415, "unsupported-media-type")
    for kind in ("application/json; charset=utf-8", "application/merge-patch+json"):
        response = await admin.patch(
            "/v1/subscribers/sub_01h455vb4pex5vsknk084sn02q", content=b"{}", headers={"Content-Type": kind}
        )
        check_problem(response, 404, "not-found")


async def test_a_body_over_the_limit_is_refused_also_when_chunked(admin: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 65_536

    headers = {"Content-Type": "application/json"}
    for path in ("/v1/subscribers", "/v1/events"):
        for body in (b" " * 1_048_577, chunks()):
            check_problem(await admin.post(path, content=body, headers=headers), 413, "body-too-large")
    response = await admin.post("/v1/subscribers", content=b" " * 1_048_560 + b'{"name": "L"}', headers=headers)
    assert response.status_code == 201


async def test_a_body_of_many_values_is_refused_before_each_becomes_a_fault(admin: httpx.AsyncClient) -> None:
    bodies: list[dict[str, Any]] = [{f"member_{n}": {} for n in range(30_000)}, {"name": [[]] * 30_000}]
    for body in bodies:
        response = await admin.post("/v1/subscribers", json=body)
        assert "values" in check_problem(response, 413, "body-too-large")["detail"]
    response = await admin.post("/v1/subscribers", json={f"member_{n}": {} for n in range(10_000)})
    assert len(check_problem(response, 422, "invalid-request")["errors"]) == 50


async def test_unknown_paths_and_methods_are_problems(admin: httpx.AsyncClient) -> None:
    check_problem(await admin.get("/v1/nothing"), 404, "not-found")
    check_problem(await admin.get("/v1/endpoints/"), 404, "not-found")
    check_problem(await admin.get("/v1/endpoints/not-an-id"), 404, "not-found")
    check_problem(await admin.get("/v1/endpoints/sub_01h455vb4pex5vsknk084sn02q"), 404, "not-found")
    check_problem(await admin.get("/v1/events/batch"), 405, "method-not-allowed")
    for path, allowed in {
        "/v1/events": "GET, POST",
        "/v1/events/batch": "POST",
        "/v1/endpoints/ep_01h455vb4pex5vsknk084sn02q": "DELETE, GET, PATCH",
        "/v1/stats": "GET",
    }.items():
        for method in ("PUT", "TRACE", "OPTIONS", "PROPFIND"):
            response = await admin.request(method, path)
            check_problem(response, 405, "method-not-allowed")
            assert response.headers["allow"] == allowed


async def test_every_answer_has_security_headers_and_no_server(admin: httpx.AsyncClient, api: Api) -> None:
    async with api.client(None) as stranger:
        for response in (
            await admin.get("/v1/subscribers"),
            await admin.get("/v1/nothing"),
            await admin.post("/v1/events", content=b"x"),
            await stranger.get("/v1/subscribers"),
            await stranger.get("/healthz"),
        ):
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert response.headers["x-frame-options"] == "DENY"
            assert response.headers["x-request-id"]
            assert "server" not in response.headers


async def test_a_request_id_is_taken_over_if_it_is_one(admin: httpx.AsyncClient) -> None:
    given = await admin.get("/healthz", headers={"X-Request-Id": "hms-17.a"})
    assert given.headers["x-request-id"] == "hms-17.a"
    replaced = await admin.get("/healthz", headers={"X-Request-Id": "a b<script>"})
    assert replaced.headers["x-request-id"].startswith("req_")


async def test_what_nobody_foresaw_is_a_problem_without_detail(
    admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, unforeseen: list[BaseException]
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError(SECRET_VALUE)

    monkeypatch.setattr(subscribers, "page", fail)
    check_problem(await admin.get("/v1/subscribers"), 500, "internal-error")
    assert isinstance(unforeseen.pop(), ZeroDivisionError)


async def test_a_missing_encryption_key_is_a_passing_trouble(api: Api, database_url: str) -> None:
    key = await api.make_key("admin")
    async with serve(database_url, master=b"another".ljust(32)) as (url, _), api.client(key) as client:
        client.base_url = url
        made = await client.post("/v1/subscribers", json={"name": "Lab", "event_types": ["*"]})
        assert made.status_code == 201, "what needs no encryption works"
        body = {"subscriber_id": made.json()["id"], "url": "https://a.example.com/", "event_types": ["*"]}
        response = await client.post("/v1/endpoints", json=body)
        check_problem(response, 503, "unavailable")
        assert response.headers["retry-after"]


async def test_it_starts_without_its_database_and_says_so() -> None:
    async with (
        serve("postgresql://nobody@127.0.0.1:1/nowhere") as (url, _),
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        assert (await client.get("/healthz")).status_code == 200
        key = api_keys.new_key(bytes(api_keys.ENTROPY_BYTES))
        client.headers["Authorization"] = f"Bearer {key}"
        for path in ("/readyz", "/v1/subscribers"):
            response = await client.get(path)
            check_problem(response, 503, "unavailable")
            assert int(response.headers["retry-after"]) > 0
        posted = await client.post("/v1/events", json={"type": "staff_shift.assigned", "data": {}})
        check_problem(posted, 503, "unavailable")


async def test_it_says_so_while_its_database_takes_no_writes(api: Api, database_url: str) -> None:
    key, administrator = await api.make_key("admin"), await asyncpg.connect(database_url)

    async def take_writes(taken: bool) -> None:
        await administrator.execute(f"""
            SET default_transaction_read_only = off;
            DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = {not taken}',
                                       current_database()); END $$;
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()""")

    async with serve(database_url) as (url, _), api.client(key) as client:
        client.base_url = url
        assert (await client.get("/readyz")).is_success
        for taken in (False, True):
            await take_writes(taken)
            async with asyncio.timeout(20):
                while (ready := await client.get("/readyz")).is_success is not taken:
                    pass
            posted = await client.post("/v1/subscribers", json={"name": "Lab"})
            if taken:
                assert posted.status_code == 201
            else:
                for answer in (ready, posted):
                    check_problem(answer, 503, "unavailable")
    await administrator.close()


async def test_a_key_that_is_used_too_often_is_told_to_wait(database_url: str) -> None:
    async with running(database_url, api_rate=5.0) as api:
        async with api.client(await api.make_key()) as client:
            answers = await asyncio.gather(*(client.get("/v1/event-types") for _ in range(30)))
            refused = [answer for answer in answers if answer.status_code != 200]
            assert 30 > len(refused) > 10
            for answer in refused:
                check_problem(answer, 429, "too-many-requests")
                assert answer.headers["retry-after"] == "1"
        async with api.client(await api.make_key()) as another:
            assert (await another.get("/v1/event-types")).status_code == 200


async def test_an_event_counts_once_whichever_way_it_takes(database_url: str) -> None:
    async with running(database_url, api_rate=5.0) as api, api.client(await api.make_key("events:write")) as client:
        unknown = {"type": "no.such_type", "data": {}}
        for event in (unknown, unknown, unknown, unknown, unknown):
            assert (await client.post("/v1/events", json=event)).status_code == 422
        answers = await asyncio.gather(*(client.post("/v1/events", json=unknown) for _ in range(30)))
        refused = [answer for answer in answers if answer.status_code != 422]
        assert len(refused) > 10
        for answer in refused:
            check_problem(answer, 429, "too-many-requests")
            assert answer.headers["retry-after"] == "1"


async def test_a_batch_counts_as_many_times_as_it_has_events(database_url: str) -> None:
    batch = {"events": [{"type": "no.such_type", "data": {}}] * 1_000}
    async with running(database_url, api_event_rate=10.0) as api:
        async with api.client(await api.make_key("events:write")) as client:
            assert (await client.post("/v1/events/batch", json=batch)).status_code == 200
            refused = await client.post("/v1/events/batch", json={"events": batch["events"][:1]})
            assert "10 events" in check_problem(refused, 429, "too-many-requests")["detail"]
        async with api.client(await api.make_key("events:write")) as another:
            assert (await another.post("/v1/events/batch", json=batch)).status_code == 200


async def test_the_documentation_needs_a_key_unless_it_is_public(api: Api, database_url: str) -> None:
    async with api.client(None) as stranger:
        for path in ("/docs", "/openapi.json"):
            check_problem(await stranger.get(path), 401, "unauthorized")
    async with api.client(await api.make_key()) as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        assert "<script" not in page.text
        assert "sha256-" in page.headers["content-security-policy"]
    async with running(database_url, public_docs=True) as public, public.client(None) as stranger:
        document = (await stranger.get("/openapi.json")).json()
        assert (await stranger.get("/docs")).status_code == 200
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["summary"]
            assert operation["description"]
            assert operation["operationId"]
            assert operation["tags"]
            for status, answer in operation["responses"].items():
                content = answer.get("content", {})
                assert content or status == "204", (path, status)
                assert all("example" in media or "examples" in media for media in content.values()), (path, status)
            for media in operation.get("requestBody", {}).get("content", {}).values():
                assert media["examples"], path


async def test_an_idempotency_key_given_twice_is_no_key(api: Api) -> None:
    headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    async with await api.as_client("events:write") as client:
        response = await client.post("/v1/events", json={"type": "lab_result.final", "data": {}}, headers=headers)
    problem = check_problem(response, 422, "invalid-request")
    assert problem["errors"] == [{"parameter": "Idempotency-Key", "rule": "once", "remedy": "Give the header once."}]
