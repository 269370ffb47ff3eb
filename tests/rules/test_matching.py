"""Which endpoints want an event."""

from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules.matching import Matcher, fits, is_name, is_pattern
from webhook_gateway.rules.model import Endpoint

TENANT, OTHER = UUID(int=1), UUID(int=2)
segments = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
names = st.lists(segments, min_size=2, max_size=4).map(".".join)


def endpoint(number: int, *patterns: str, tenant: UUID = TENANT) -> Endpoint:
    return Endpoint(UUID(int=number), tenant, UUID(int=9), 1, "https://partner.example", patterns)


@given(names)
def test_a_name_wants_itself_its_prefixes_want_it_and_so_does_everything(name: str) -> None:
    assert is_name(name)
    assert fits(name, name)
    assert fits(name.rpartition(".")[0] + ".*", name)
    assert fits("*", name) == (not name.startswith("gateway."))


@given(names)
def test_a_prefix_ends_at_a_dot(name: str) -> None:
    assert not fits(name + ".*", name)
    assert not fits(name[:-1] + ".*", name) or name[-2] == "."


@pytest.mark.parametrize(
    "pattern", ["", "*.final", "lab_result*", "lab_result.", ".x", "Lab.x", "a..b", "**", "a.*.b", "a b.c"]
)
def test_what_would_never_match_is_no_pattern(pattern: str) -> None:
    assert not is_pattern(pattern)


@pytest.mark.parametrize("pattern", ["*", "lab_result.*", "lab_result.final", "gateway.*", "lab_result"])
def test_patterns(pattern: str) -> None:
    assert is_pattern(pattern)


@pytest.mark.parametrize("name", ["", "lab_result", "lab_result.", ".final", "Lab.final", "lab.9", "lab.x\n", "lab.*"])
def test_what_is_no_name_in_two_parts_is_no_event_type(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize("read", [is_name, is_pattern])
def test_a_name_has_128_characters_at_most(read: Callable[[str], bool]) -> None:
    assert read("lab." + "a" * 124)
    assert not read("lab." + "a" * 125)


def test_an_endpoint_with_several_fitting_patterns_gets_one_delivery() -> None:
    wants = endpoint(1, "*", "lab_result.*", "lab_result.final")
    assert Matcher([wants]).match(TENANT, "lab_result.final") == (wants,)


def test_another_hospitals_endpoint_never_matches() -> None:
    assert Matcher([endpoint(1, "*", tenant=OTHER)]).match(TENANT, "lab_result.final") == ()


def test_the_gateways_own_events_go_only_to_who_asks_for_them() -> None:
    everything, operator = endpoint(1, "*"), endpoint(2, "gateway.*")
    matcher = Matcher([everything, operator])
    assert matcher.match(TENANT, "gateway.endpoint_disabled") == (operator,)
    assert matcher.match(TENANT, "lab_result.final") == (everything,)
