"""What a regular expression may cost at worst, per byte of the text that it searches.

The engine is linear in the text, but not free: where many places of a pattern may match at once, each byte costs as
much as there are such places. ``a[ab]{800}c`` takes nine seconds for a megabyte.
"""

from __future__ import annotations

import re
from typing import NamedTuple

FEW, FEW_COST, PLACE_COST = 10, 10.0, 30.0
"""Up to so many places the engine remembers every mix of them, and a byte costs this; else this for each place (ns)."""
MOST_PLACES = 100_000
"""No count goes further: what has so many is refused anyway."""

_TOKEN = re.compile(
    r"\\(?:[pP]\{[^}]*\}|u\{[^}]*\}|u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|c.|.)"
    r"|\[(?:\\.|[^\]\\])*\]"
    r"|\(\?(?:[:=!]|<[=!]|P?<\w+>|[\w-]*:)|\(|\)|\|"
    r"|(?:[*+?]|\{(?P<least>\d+)(?P<range>,(?P<most>\d*))?\})\??"
    r"|.",
    re.DOTALL,
)


class _Piece(NamedTuple):
    """``places`` that may match a character, and the shortest and longest text; ``choices`` counts alternatives."""

    places: int = 0
    shortest: int = 0
    longest: int = 0
    choices: int = 0


_CHARACTER = _Piece(1, 1, 1)
_NOTHING = _Piece()


def byte_cost(pattern: str) -> float:
    """Nanoseconds for each byte, at worst. What is no pattern has a cost, too: others say that it is none."""
    whole = _measure(pattern)
    places = whole.places
    if pattern.startswith("^") and whole.longest < MOST_PLACES:
        # It begins in one place only, so no more are open at once than there are ways to be early or late.
        places = min(places, whole.longest - whole.shortest + whole.choices + 1)
    return FEW_COST if places <= FEW else PLACE_COST * places


def _measure(pattern: str) -> _Piece:
    """Groups are kept on a stack, each as the alternatives that are done and the pieces of the one that is not."""
    groups: list[tuple[list[_Piece], list[_Piece]]] = [([], [])]
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        done, pieces = groups[-1]
        if text.startswith("("):
            groups.append(([], []))
        elif text == "|":
            done.append(_in_a_row(pieces))
            pieces.clear()
        elif text == ")" and len(groups) > 1:
            groups.pop()
            groups[-1][1].append(_one_of([*done, _in_a_row(pieces)]))
        elif text[0] in "*+?" or token["least"] is not None:
            if pieces:
                pieces.append(_repeated(pieces.pop(), *_counts(token)))
        elif text in {"^", "$", "\\b", "\\B"}:
            # Between alternatives it holds one of them only: then nothing is anchored as a whole.
            pieces.append(_NOTHING)
        else:
            pieces.append(_CHARACTER)
    whole = _one_of([*groups[0][0], _in_a_row(groups[0][1])])
    return whole._replace(longest=MOST_PLACES) if groups[0][0] else whole


def _in_a_row(pieces: list[_Piece]) -> _Piece:
    return _Piece(*(min(MOST_PLACES, sum(column)) for column in zip(*pieces, strict=True))) if pieces else _NOTHING


def _one_of(choices: list[_Piece]) -> _Piece:
    all_of = _in_a_row(choices)
    return _Piece(
        all_of.places,
        min(piece.shortest for piece in choices),
        max(piece.longest for piece in choices),
        all_of.choices + len(choices) - 1,
    )


def _repeated(piece: _Piece, least: int, most: int | None) -> _Piece:
    times = max(1, least if most is None else most)
    return _Piece(
        min(MOST_PLACES, piece.places * times),
        min(MOST_PLACES, piece.shortest * least),
        MOST_PLACES if most is None else min(MOST_PLACES, piece.longest * most),
        min(MOST_PLACES, piece.choices * times),
    )


def _counts(token: re.Match[str]) -> tuple[int, int | None]:
    if token["least"] is None:
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[token[0][0]]
    least = int(token["least"][:9])
    if token["range"] is None:
        return least, least
    return least, int(token["most"][:9]) if token["most"] else None
