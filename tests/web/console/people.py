"""Somebody with a browser that keeps cookies and says where its forms are from, as all have since 2023."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx

from webhook_gateway.rules import ids
from webhook_gateway.web.console.frame import PAGES, Page

OURS = {"Sec-Fetch-Site": "same-origin"}
SESSION = "ses_01h455vb4pex5vsknk084sn02q"


class Person(httpx.AsyncClient):
    """At the console, signed in."""

    async def sign_in(self, key: str) -> None:
        answer = await self.post("/console/login", data={"key": key})
        assert answer.status_code == 303, answer.text

    async def see(self, path: str, status: int = 200) -> str:
        answer = await self.get(f"/console{path}")
        assert answer.status_code == status, (path, answer.status_code, text_of(answer.text))
        return answer.text

    async def do(self, path: str, **fields: str) -> httpx.Response:
        return await self.post(f"/console{path}", data=fields, timeout=30)


def pages(method: str | None = None) -> Iterator[Page]:
    return (page for page in PAGES if method in (None, page.method))


def text_of(html: str) -> str:
    """What a reader would hear of the page's content."""
    return " ".join(re.sub(r"<[^>]*>", " ", html.partition("<main")[2]).split())


def id_in(answer: httpx.Response, prefix: str) -> str:
    found = re.search(rf"{prefix}_[0-9a-z]{{26}}", answer.headers.get("location", "") or answer.text)
    assert found is not None, answer.text
    ids.parse(prefix, found[0])
    return found[0]
