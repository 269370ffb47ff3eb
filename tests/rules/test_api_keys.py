"""API keys: their form, and what can be told of one without a database."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules import api_keys

entropy = st.binary(min_size=api_keys.ENTROPY_BYTES, max_size=api_keys.ENTROPY_BYTES)


@given(entropy)
def test_a_key_is_one_that_scanners_find(raw: bytes) -> None:
    key = api_keys.new_key(raw)
    assert re.fullmatch(r"whk_[0-9A-Za-z]{57}", key)
    assert api_keys.is_key(key)


@given(entropy, entropy)
def test_different_randomness_makes_different_keys(one: bytes, other: bytes) -> None:
    # The name keeps 47.6 of its 48 bits, so keys are compared where the secret differs.
    assert (api_keys.new_key(one)[12:-6] == api_keys.new_key(other)[12:-6]) == (one[6:] == other[6:])


@given(entropy, st.integers(0, 60), st.sampled_from("0Az9"))
def test_a_mistyped_character_is_noticed_without_asking_the_database(raw: bytes, place: int, other: str) -> None:
    key = api_keys.new_key(raw)
    mistyped = key[:place] + other + key[place + 1 :]
    assert api_keys.is_key(mistyped) == (mistyped == key)


@given(st.text())
def test_other_text_is_no_key(text: str) -> None:
    assert not api_keys.is_key(text)


def test_a_key_with_a_line_end_is_no_key() -> None:
    assert not api_keys.is_key(api_keys.new_key(bytes(api_keys.ENTROPY_BYTES)) + "\n")


def test_the_name_of_a_key_tells_none_of_its_secret() -> None:
    one = api_keys.new_key(bytes(api_keys.ENTROPY_BYTES))
    other = api_keys.new_key(bytes(6) + b"\xff" * 32)
    assert api_keys.name_of(one) == api_keys.name_of(other) == "whk_00000000"
    assert api_keys.digest(one) != api_keys.digest(other)
    assert len(api_keys.digest(one)) == 32


def test_a_key_needs_all_of_its_randomness() -> None:
    with pytest.raises(ValueError, match="38 random bytes"):
        api_keys.new_key(b"short")
