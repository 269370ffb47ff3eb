"""What pages load: style, scripts and icons, out of memory. Each has its digest in its URL, so browsers may keep it."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from starlette.responses import Response

KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
KEPT = "private, max-age=31536000, immutable"

_FILES = {file.name: file.read_bytes() for file in files(__package__).joinpath("static").iterdir()}
_PATHS = {name: f"/static/{hashlib.sha256(what).hexdigest()[:16]}/{name}" for name, what in _FILES.items()}
_NAMES = {path: name for name, path in _PATHS.items()}


def find(path: str) -> Response | None:
    """The file at a path below the root, if there is one."""
    if (name := _NAMES.get(path)) is None:
        return None
    return Response(_FILES[name], headers={"Cache-Control": KEPT}, media_type=KINDS[name.rpartition(".")[2]])


def url_of(root: str, name: str) -> str:
    return root + _PATHS[name]
