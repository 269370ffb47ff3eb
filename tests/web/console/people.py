"""Somebody with a browser that keeps cookies and says where its forms are from, as all have since 2023."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import httpx

from webhook_gateway.rules import ids
from webhook_gateway.web.console.frame import Page, pages_of

OURS = {"Sec-Fetch-Site": "same-origin"}
ELSEWHERE = {"/console/login/account", "/console/login/callback", "/console/live", "/portal/live"}
"""The ways to the hospital's sign-in and back, and what goes on until one leaves: they have tests of their own."""
SESSION = "ses_01h455vb4pex5vsknk084sn02q"


class Person(httpx.AsyncClient):
    """At the console, signed in."""

    async def sign_in(self, key: str) -> None:
        answer = await self.post("/console/login", data={"key": key})
        assert answer.status_code == 303, answer.text

    async def open_portal(self, code: str) -> None:
        answer = await self.post("/portal/login", data={"key": code})
        assert answer.status_code == 303, answer.text

    async def see(self, path: str, status: int = 200, root: str = "/console") -> str:
        answer = await self.get(f"{root}{path}")
        assert answer.status_code == status, (path, answer.status_code, text_of(answer.text))
        return answer.text

    async def do(self, path: str, **fields: str) -> httpx.Response:
        return await self.post(f"/console{path}", data=fields, timeout=30)


def person_at(url: str) -> Person:
    """Somebody who is not signed in, with a browser that says where its forms come from."""
    return Person(base_url=url, trust_env=False, headers=OURS, verify=False)


def pages(method: str | None = None, root: str = "/console") -> Iterator[Page]:
    return (page for page in pages_of(root) if method in (None, page.method) and page.path not in ELSEWHERE)


def text_of(html: str) -> str:
    """What a reader would hear of the page's content."""
    return " ".join(re.sub(r"<[^>]*>", " ", html.partition("<main")[2]).split())


def id_in(answer: httpx.Response, prefix: str) -> str:
    found = re.search(rf"{prefix}_[0-9a-z]{{26}}", answer.headers.get("location", "") or answer.text)
    assert found is not None, answer.text
    ids.parse(prefix, found[0])
    return found[0]


class _Forms(HTMLParser):
    """The forms of a page, and what a browser would send of each if nobody had typed anything."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self._select = self._area = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        name, value = about.get("name") or "", about.get("value") or ""
        if tag == "form":
            self.found.append((about.get("action") or "", {}))
        if tag == "select":
            self._select = name
        if tag == "option" and self._select and ("selected" in about or self._select not in self.found[-1][1]):
            self.found[-1][1][self._select] = value
        if tag == "textarea":
            self._area = name
        if tag == "input" and name and (about.get("type") not in ("checkbox", "radio") or "checked" in about):
            self.found[-1][1][name] = value

    def handle_data(self, data: str) -> None:
        if self._area:
            fields = self.found[-1][1]
            fields[self._area] = fields.get(self._area, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._select = "" if tag == "select" else self._select
        self._area = "" if tag == "textarea" else self._area


def form_of(html: str, action: str) -> dict[str, str]:
    """What the form there would send as it is shown."""
    return next(fields for path, fields in _Forms(html).found if path.partition("#")[0] == f"/console{action}")
