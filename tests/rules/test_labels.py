from __future__ import annotations

import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules.labels import PROSE, is_label, visible

BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
MARKS = "\u061c\u200e\u200f"


@pytest.mark.parametrize(
    "label", ["A", "Central laboratory", "M\u00fcnchen 3", "[/x]", "\u05de\u05e2\u05d1\u05d3\u05d4", "a" * 200]
)
def test_a_label_is_what_people_call_a_thing(label: str) -> None:
    assert is_label(label)


@pytest.mark.parametrize("label", ["", " ", " a", "a ", "a\n", "a\tb", "\x7f", "a" * 201, "a\u2028b"])
def test_a_label_has_at_most_200_characters_all_printable_and_no_space_around_them(label: str) -> None:
    assert not is_label(label)


def test_no_name_and_no_description_has_a_character_that_a_terminal_obeys_or_that_turns_text_around() -> None:
    every = map(chr, (*range(0xD800), *range(0xE000, 0x110000)))
    turns = [c for c in every if unicodedata.category(c) == "Cc" or unicodedata.bidirectional(c) in BIDI or c in MARKS]
    assert len(turns) == 65 + 9 + 3
    for character in turns:
        assert not is_label(f"a{character}b")
        assert (re.fullmatch(PROSE, f"a{character}b") is not None) is (character in "\t\n\r")
        assert (character in visible(character)) is (character in "\t\n")


@given(st.text())
def test_what_is_made_visible_is_still_the_same_json(text: str) -> None:
    assert json.loads(visible(json.dumps(text, ensure_ascii=False))) == text
