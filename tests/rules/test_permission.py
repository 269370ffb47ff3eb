"""What an endpoint gets: what its subscriber may have and it wants, against every type there could be."""

from __future__ import annotations

from itertools import product

from hypothesis import example, given
from hypothesis import strategies as st

from webhook_gateway.rules.matching import beyond, effective, fits, is_pattern, may_have

SEGMENTS = ("a", "ab", "gateway", "test")
NAMES = [".".join(parts) for length in (2, 3, 4) for parts in product(SEGMENTS, repeat=length)]
PATTERNS = ["*", *NAMES, *SEGMENTS, *(f"{'.'.join(p)}.*" for n in (1, 2, 3) for p in product(SEGMENTS, repeat=n))]
patterns = st.lists(st.sampled_from(PATTERNS), max_size=4)


def wanted(by: list[str] | tuple[str, ...]) -> set[str]:
    return {name for name in NAMES if any(fits(pattern, name) for pattern in by)}


def test_every_form_of_pattern_is_tried() -> None:
    assert all(map(is_pattern, PATTERNS))


@given(patterns, patterns)
@example(["*"], ["gateway.*"])
@example(["*"], ["gateway.*", "a.*"])
@example(["a.b"], ["a.*"])
@example(["gateway.*", "*"], ["*"])
def test_what_both_want_is_what_it_gets_and_nothing_else(permitted: list[str], own: list[str]) -> None:
    gets = effective(permitted, own)
    assert wanted(gets) == (wanted(permitted) & wanted(own) if own else wanted(permitted))
    assert all(map(is_pattern, gets))
    assert len(set(gets)) == len(gets) or not own


@given(patterns, patterns)
def test_what_is_not_beyond_is_permitted_whole(permitted: list[str], own: list[str]) -> None:
    within = [pattern for pattern in own if pattern not in beyond(permitted, own)]
    assert wanted(within) <= wanted(permitted)
    assert beyond(permitted, effective(permitted, own)) == []


@given(patterns, st.sampled_from(NAMES))
def test_it_may_have_what_is_in_its_set_and_the_test_that_tells_nothing(gets: list[str], name: str) -> None:
    assert may_have(tuple(gets), name) == (name in wanted(gets) or name == "gateway.test")
