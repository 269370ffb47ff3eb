"""How long everybody waits for everybody, in the figures that operators and partners are told."""

from uuid import UUID

from webhook_gateway.rules import deadlines
from webhook_gateway.rules.model import Endpoint

ID = UUID(int=1)


def test_what_a_dead_worker_had_is_due_again_after_thirty_seconds_unless_set_up_otherwise() -> None:
    assert Endpoint(ID, ID, ID, 1, "https://partner.example/hook", ()).deadline + deadlines.LEASE_MARGIN == 30


def test_a_lease_outlasts_the_request_and_its_token() -> None:
    assert deadlines.LEASE_MARGIN > deadlines.TOKEN_DEADLINE


def test_a_request_of_a_minute_and_its_token_end_and_are_settled_before_a_worker_stops() -> None:
    assert deadlines.LONGEST_DEADLINE == 60
    assert deadlines.WORKER_DRAINS_WITHIN == 60 + deadlines.TOKEN_DEADLINE + deadlines.SETTLING == 80


def test_each_program_gives_those_below_it_ten_seconds_more_than_they_need() -> None:
    assert [deadlines.WORKER_DRAINS_WITHIN, deadlines.WORKER_KILLED_AFTER, deadlines.WORKER_TREE_KILLED_AFTER] == [
        80,
        90,
        100,
    ]
    assert [deadlines.API_DRAINS_WITHIN, deadlines.API_KILLED_AFTER, deadlines.API_TREE_KILLED_AFTER] == [10, 20, 30]
