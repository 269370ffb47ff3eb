"""``/openapi.json``, and ``/docs``: the same for people, as one page without scripts or anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

PATHS = frozenset({"/docs", "/openapi.json"})

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}
h1,h2,h3{line-height:1.2}h2{margin-top:3rem;border-bottom:1px solid #ccc}h3{margin-top:2rem}
code,pre{font:14px/1.4 ui-monospace,monospace;background:#f3f3f3;border-radius:4px}code{padding:.1em .3em}
pre{padding:.8rem;overflow:auto}table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;
padding:.3rem .6rem;border-bottom:1px solid #ddd}summary{cursor:pointer}.method{text-transform:uppercase}
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}code,pre{background:#262626}td,th{border-color:#333}}
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; base-uri 'none'"


async def document(request: Request) -> Response:
    return Response(msgspec.json.encode(request.app.openapi()), media_type="application/json")


async def page(request: Request) -> Response:
    return HTMLResponse("".join(_parts(request.app.openapi())), headers={"Content-Security-Policy": POLICY})


ROUTES = [Route("/openapi.json", document), Route("/docs", page)]


def _parts(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    title = escape(info["title"])
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<h1>{title} <small>{escape(info['version'])}</small></h1>{_prose(info['description'])}"
    yield "<p>The same for machines: <a href='/openapi.json'>/openapi.json</a>.</p>"
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2>{_prose(tag['description'])}"
        for path, method, operation in operations:
            if tag["name"] in operation["tags"]:
                yield from _operation(path, method, operation)


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    name = escape(operation["operationId"])
    yield f'<section id="{name}"><h3><code><span class="method">{method}</span> {escape(path)}</code> '
    yield f"{escape(operation['summary'])}</h3>{_prose(operation['description'])}"
    if parameters := operation.get("parameters"):
        yield "<table><tr><th>Parameter</th><th>In</th><th></th></tr>"
        for parameter in parameters:
            about = parameter.get("description") or parameter.get("schema", {}).get("description", "")
            yield f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{parameter['in']}</td>"
            yield f"<td>{escape(about)}</td></tr>"
        yield "</table>"
    if body := operation.get("requestBody"):
        yield from _examples("Body", body["content"])
    for status, response in operation["responses"].items():
        yield from _examples(f"{status}: {response['description']}", response.get("content", {}))
    yield "</section>"


def _examples(label: str, content: dict[str, Any]) -> Iterator[str]:
    shown = [example["value"] for media in content.values() for example in media.get("examples", {}).values()]
    if not shown:
        yield f"<p>{escape(label)}</p>"
        return
    yield f"<details><summary>{escape(label)}</summary>"
    for example in shown:
        yield f"<pre>{escape(json.dumps(example, indent=2, ensure_ascii=False))}</pre>"
    yield "</details>"


def _prose(text: str) -> str:
    """Paragraphs and `code`: no more of Markdown is used in this API."""
    paragraphs = [part.strip() for part in text.strip().split("\n\n")]
    return "".join(f"<p>{_with_code(part)}</p>" for part in paragraphs if part)


def _with_code(text: str) -> str:
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces))
