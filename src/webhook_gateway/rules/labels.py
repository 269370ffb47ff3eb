"""What people call things, and how any text is shown so that it can't pass for another one or command a terminal."""

from __future__ import annotations

import re

_UNSEEN = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""DEL and C1 controls, marks and overrides of direction (UAX #9), separators of lines; for Python and Rust."""
_CONTROL = rf"\x00-\x1f{_UNSEEN}"

LABEL = rf"^[^\s{_CONTROL}]([^{_CONTROL}]*[^\s{_CONTROL}])?$"
"""A name: printable text that neither begins nor ends with a space."""
LONGEST_LABEL = 200
PROSE = rf"^[^\x00-\x08\x0b\x0c\x0e-\x1f{_UNSEEN}]*$"
"""A description: the same, of any number of lines."""

_HIDDEN = re.compile(rf"[\x00-\x08\x0b-\x1f{_UNSEEN}\ud800-\udfff]")


def is_label(text: str) -> bool:
    return len(text) <= LONGEST_LABEL and re.fullmatch(LABEL, text) is not None


def visible(text: str) -> str:
    """The text with what a terminal would obey, or show elsewhere, as JSON escapes it; lines and tabs stay."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
