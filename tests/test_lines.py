"""Lines wait for each other until there are some, or until one comes late enough; a timer is the last to write."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from webhook_gateway import lines


class Line(msgspec.Struct):
    number: int


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    texts: list[bytes] = []
    monkeypatch.setattr(lines, "_put", texts.append)
    return texts


async def test_one_that_comes_late_enough_is_written_with_all(
    written: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LINGER", 3_600.0)
    lines.write_soon(Line(1))
    await asyncio.sleep(0.01)
    assert written == []
    monkeypatch.setattr(lines, "_due", 0.0)
    lines.write_soon(Line(2))
    lines.write_soon(Line(3))
    await asyncio.sleep(0.01)
    assert written == [b'{"number":1}\n{"number":2}\n{"number":3}\n']


async def test_so_are_as_many_as_may_wait(written: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINGER", 3_600.0)
    for number in range(lines.MOST):
        lines.write_soon(Line(number))
    await asyncio.sleep(0.01)
    assert b"".join(written).count(b"\n") == lines.MOST


async def test_or_else_a_timer_writes_them(written: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINGER", 0.01)
    lines.write_soon(Line(1))
    await asyncio.sleep(0.5)
    assert written == [b'{"number":1}\n']


async def test_no_write_is_cut_within_a_line(written: list[bytes]) -> None:
    for number in range(1_000, 1_000 + lines.MOST):
        lines.write_soon(Line(10**90 + number))
    lines.write()
    assert len(written) > 1
    assert all(len(text) <= 4_096 and text.endswith(b"\n") for text in written)
