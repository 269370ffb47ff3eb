"""What pages load: style, scripts and icons, out of memory. Each has its digest in its URL, so browsers may keep it."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from starlette.responses import Response

from .signed_in import PATH

KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
KEPT = "private, max-age=31536000, immutable"

_FILES = {file.name: file.read_bytes() for file in files(__package__).joinpath("static").iterdir()}
_URLS = {name: f"{PATH}/static/{hashlib.sha256(what).hexdigest()[:16]}/{name}" for name, what in _FILES.items()}
_NAMES = {url: name for name, url in _URLS.items()}


def find(path: str) -> Response | None:
    """The file at a path, if there is one."""
    if (name := _NAMES.get(path)) is None:
        return None
    return Response(_FILES[name], headers={"Cache-Control": KEPT}, media_type=KINDS[name.rpartition(".")[2]])


def url_of(name: str) -> str:
    return _URLS[name]
