"""What a pattern costs at worst, at the limits of each rule."""

import pytest

from webhook_gateway.rules.pattern_cost import FEW_COST, PLACE_COST, byte_cost


@pytest.mark.parametrize(
    ("few", "many", "places"),
    [
        ("a" * 10, "a" * 11, 11),
        ("a{10}", "a{11}", 11),
        ("(?:a{10})+", "(?:a{11})+", 11),
        ("(?:a{10})*", "(?:a{11})*", 11),
        ("(?:a{10})?", "(?:a{11})?", 11),
        ("a{0,10}", "a{0,11}", 11),
        ("a{10,}", "a{11,}", 11),
        ("aaaaa|bbbbb", "aaaaa|bbbbbb", 11),
        ("^(?:a?){9}$", "^(?:a?){10}a$", 11),
    ],
)
def test_ten_places_at_once_cost_little_and_from_eleven_on_each_counts(few: str, many: str, places: int) -> None:
    assert byte_cost(few) == FEW_COST
    assert byte_cost(many) == PLACE_COST * places


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        (r"^a{99999}$", 0),  # it is in one place only
        (r"^a{100000}$", 100_000),  # counted no further, so nothing follows from its length
        (r"^(?:a|bb|ccc){20}$", 81),  # 20 to 60 characters, and 40 choices
        (r"^(?:a|b){20}$", 21),
        (r"^x?a{20}$", 0),
    ],
)
def test_what_is_anchored_is_in_as_many_places_as_it_may_be_early_or_late(pattern: str, places: int) -> None:
    assert byte_cost(pattern) == (PLACE_COST * places or FEW_COST)
