"""Events as they are posted: each is judged for itself, and told in a sentence what is wrong."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.web.serving import Api
from tests.web.test_problems import check_problem
from tests.web.world import post
from webhook_gateway.host import tracing

GOOD: dict[str, Any] = {
    "type": "staff_shift.assigned",
    "data": {
        "shift_id": "shf_1", "staff_id": "st_1", "facility_id": "fac_1", "role": "nurse", "version": 1,
        "starts_at": "2026-11-23T08:00:00Z", "ends_at": "2026-11-23T16:00:00Z", "assigned_by": "st_2",
    },
}  # fmt: skip
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def producer(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with await api.as_client("events:write") as client:
        yield client


def wrong(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


DEEP = '{"type": "staff_shift.assigned", "data": ' + '{"a":' * 300 + "1" + "}" * 300 + "}"
ITEMS: dict[str, tuple[str, str | None, str]] = {
    "null": ("null", "", "Give a JSON object with `type` and `data`."),
    "a number": ("5", "", "Give a JSON object with `type` and `data`."),
    "a list": ("[]", "", "Give a JSON object with `type` and `data`."),
    "no zone": (wrong(timestamp="2026-11-23T08:00:00"), "/timestamp", "Give an RFC 3339 time with its offset"),
    "no time": (wrong(timestamp="yesterday"), "/timestamp", "Give an RFC 3339 time with its offset"),
    "leap second": (wrong(timestamp="2016-12-31T23:59:60Z"), "/timestamp", "(a leap second as 59)"),
    "time as number": (wrong(timestamp=17), "/timestamp", "Give an RFC 3339 time with its offset"),
    "another century": (wrong(timestamp="1600-01-01T00:00:00Z"), "/timestamp", "between the years 1900 and 2200"),
    "an unknown member": (wrong(Jane_Doe="red"), "", "Remove the member that is unknown here; known are type, data"),
    "a long subject": (wrong(subject="x" * 257), "/subject", "Give a text of 1 to 256 characters"),
    "an empty key": (wrong(idempotency_key=""), "/idempotency_key", "Give a text of 1 to 256 characters"),
    "a number as key": (wrong(ordering_key=7), "/ordering_key", "Give a text of 1 to 256 characters"),
    "no data": ('{"type": "staff_shift.assigned"}', "/data", "Add the member"),
    "no type": ('{"data": {}}', "/type", "Add the member"),
    "a bare payload": (json.dumps(GOOD["data"]), "", 'Wrap the payload: {"type": "…", "data": {…}}'),
    "an unknown type": (wrong(type="staff_shift.asigned"), "/type", "GET /v1/event-types"),
    "a number as type": (wrong(type=3), "/type", "Give the name of an event type"),
    "data of another kind": (wrong(data=None), "/data", "It must be of type object."),
    "data that breaks the schema": (wrong(data={**GOOD["data"], "version": "1"}), "/data/version", "of type integer"),
    "a member twice": ('{"type": "staff_shift.assigned", "data": {"a": 1, "a": 2}}', None, "A member is given twice"),
    "too deep": (DEEP, None, "nested too deep"),
    "a number without end": (wrong(data={"version": 1}).replace("1}", "1" * 5_000 + "}"), None, "A number is too long"),
}


@pytest.mark.parametrize("name", ITEMS)
async def test_what_is_wrong_with_one_event_of_a_batch_refuses_that_event_alone(
    producer: httpx.AsyncClient, name: str
) -> None:
    item, pointer, sentence = ITEMS[name]
    good = json.dumps(GOOD)
    answer = await producer.post(
        "/v1/events/batch", content=f'{{"events": [{good}, {item} , {good}]}}', headers=JSON, timeout=30
    )
    assert answer.status_code == 200, answer.text
    assert [result["status"] for result in answer.json()["results"]][::2] == [202, 202]
    assert (answer.json()["accepted"], answer.json()["refused"]) == (2, 1)
    error = answer.json()["results"][1]["error"]
    alone = (await producer.post("/v1/events", content=item, headers=JSON)).json()
    assert error == {name: value for name, value in alone.items() if name != "request_id"}
    told = error["errors"][0] if pointer is not None else {"remedy": error["detail"], "pointer": None}
    assert told["pointer"] == pointer
    assert sentence in told["remedy"]
    assert "| null" not in answer.text
    assert "Jane" not in answer.text


@pytest.mark.parametrize(
    ("body", "status", "pointer", "sentence"),
    [
        (b'{"events": [{}]', 400, None, "The body is not JSON"),
        (b'{"events": [NaN]}', 400, None, "The body is not JSON"),
        (b'{"events": ["\xff"]}', 400, None, "The body is not JSON"),
        (b'{"events": [null], "events": [1]}', 400, None, "A member is given twice"),
        (b'{"events": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", 400, None, "nested too deep"),
        (b'{"events": []}', 422, "/events", "Give a list of 1 to 1,000 events."),
        (b'{"events": [' + b"null," * 1_000 + b"null]}", 422, "/events", "Give a list of 1 to 1,000 events."),
        (b'{"events": {}}', 422, "/events", "Give a list of 1 to 1,000 events."),
        (b'{"events": [null], "more": 1}', 422, "", "Remove the member that is unknown here; known are events."),
        (b'{}', 422, "/events", "Add the member"),
        (b'[{"type": "staff_shift.assigned", "data": {}}]', 422, "", "Give a JSON object"),
    ],
)  # fmt: skip
async def test_a_batch_that_is_none_is_refused_as_a_whole(
    producer: httpx.AsyncClient, body: bytes, status: int, pointer: str | None, sentence: str
) -> None:
    answer = await producer.post("/v1/events/batch", content=body, headers=JSON)
    problem = check_problem(answer, status, "malformed-json" if status == 400 else "invalid-request")
    fault = problem["errors"][0] if pointer is not None else {"remedy": problem["detail"], "pointer": None}
    assert (fault["pointer"], sentence in fault["remedy"]) == (pointer, True), fault


async def test_a_key_for_a_whole_batch_is_refused_and_not_ignored(producer: httpx.AsyncClient) -> None:
    answer = await producer.post("/v1/events/batch", json={"events": [GOOD]}, headers={"Idempotency-Key": "k"})
    (fault,) = check_problem(answer, 422, "invalid-request")["errors"]
    assert fault["parameter"] == "Idempotency-Key"
    assert "its own `idempotency_key`" in fault["remedy"]


@pytest.mark.parametrize("key", ["ord_1", "Überweisung-№7", "注文-1"])
async def test_a_key_is_the_same_as_header_and_as_member(producer: httpx.AsyncClient, key: str) -> None:
    header = {b"Idempotency-Key": key.encode()}
    first = await producer.post("/v1/events", json=GOOD, headers=header)
    again = await producer.post("/v1/events", json={**GOOD, "idempotency_key": key})
    both = await producer.post("/v1/events", json={**GOOD, "idempotency_key": key}, headers=header)
    assert first.status_code == again.status_code == both.status_code == 202
    assert first.json()["id"] == again.json()["id"] == both.json()["id"]
    assert again.json()["duplicate"]


async def test_a_key_in_no_known_encoding_is_no_key(producer: httpx.AsyncClient) -> None:
    answer = await producer.post("/v1/events", json=GOOD, headers={b"Idempotency-Key": b"\xfcberweisung"})
    (fault,) = check_problem(answer, 422, "invalid-request")["errors"]
    assert (fault["parameter"], fault["rule"]) == ("Idempotency-Key", "encoding")


async def test_a_compressed_body_is_told_to_come_plain(producer: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    body, headers = gzip.compress(json.dumps(GOOD).encode()), {**JSON, "Content-Encoding": "gzip"}
    for client, path in ((producer, "/v1/events"), (producer, "/v1/events/batch"), (admin, "/v1/subscribers")):
        answer = await client.post(path, content=body, headers=headers)
        assert "Content-Encoding" in check_problem(answer, 415, "unsupported-media-type")["detail"]
        assert answer.headers["accept-encoding"] == "identity"
    plain = await producer.post("/v1/events", json=GOOD, headers={"Content-Encoding": "identity"})
    assert plain.status_code == 202


async def test_faults_without_end_end_after_fifty(producer: httpx.AsyncClient) -> None:
    body = b'{"type": "lab_result.final", "data": {"observations": [' + b"{}," * 340_000 + b"{}]}}"
    answer = await producer.post("/v1/events", content=body, headers=JSON, timeout=30)
    errors = check_problem(answer, 422, "invalid-request")["errors"]
    assert len(errors) == 50
    assert errors[0] == {
        "pointer": "/data/observations/0", "rule": "required", "remedy": "Add the member code."
    }  # fmt: skip


async def test_more_than_a_types_schema_can_be_checked_for_is_refused_by_size(
    admin: httpx.AsyncClient, producer: httpx.AsyncClient
) -> None:
    schema = {"properties": {"a": {"type": "string", "pattern": "a[ab]{100}c"}, "b": {"items": {"multipleOf": 0.01}}}}
    await post(admin, "/v1/event-types", {"name": "lab.note", "schema": schema, "example": {}})
    small = {"type": "lab.note", "data": {"a": "a" + "b" * 100 + "c", "b": [0.25] * 1_000}}
    assert (await producer.post("/v1/events", json=small)).status_code == 202
    for data in ({"a": "ab" * 100_000}, {"b": [0.25] * 100_000}):
        answer = await producer.post("/v1/events", json={"type": "lab.note", "data": data}, timeout=30)
        (fault,) = check_problem(answer, 422, "invalid-request")["errors"]
        assert (fault["pointer"], fault["rule"]) == ("/data", "size")
        assert "bytes at most" in fault["remedy"]
    many = {"type": "lab.note", "data": {"a": "ab" * 4_000}}
    answer = await producer.post("/v1/events/batch", json={"events": [many] * 100}, timeout=30)
    check_problem(answer, 413, "body-too-large")
    mixed = {"events": [small, {"type": "lab.note", "data": {"a": "ab" * 100_000}}]}
    answer = await producer.post("/v1/events/batch", json=mixed, timeout=30)
    assert [result["status"] for result in answer.json()["results"]] == [202, 422]


async def test_the_plus_of_an_offset_in_a_url_is_explained(admin: httpx.AsyncClient) -> None:
    answer = await admin.get("/v1/events?since=2026-11-23T08:00:00+01:00")
    (fault,) = check_problem(answer, 422, "invalid-request")["errors"]
    assert fault["parameter"] == "since"
    assert "%2B" in fault["remedy"]
    assert (await admin.get("/v1/events?since=2026-11-23T08:00:00%2B01:00")).status_code == 200
    (fault,) = check_problem(await admin.get("/v1/events?since=now"), 422, "invalid-request")["errors"]
    assert "%2B" not in fault["remedy"]


async def test_what_fails_behind_the_commit_is_answered_too(
    producer: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, unforeseen: list[BaseException]
) -> None:
    assert (await producer.post("/v1/events", content=wrong(), headers=JSON)).status_code == 202

    def failing(*_: object, **__: object) -> None:
        raise ValueError("nobody foresaw this")

    monkeypatch.setattr(tracing, "traces", failing)
    answer = await producer.post("/v1/events", content=wrong(), headers=JSON, timeout=30)
    assert answer.status_code == 500
    assert [str(unforeseen.pop())] == ["nobody foresaw this"]
