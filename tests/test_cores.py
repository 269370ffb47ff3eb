"""As many processes as the machine has cores for us, and `up` shares them between its halves."""

import pytest

from webhook_gateway.cores import AUTO, Processes, alone, read, shared, within


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        (None, 8),
        ("max 100000\n", 8),
        ("400000 100000\n", 4),
        ("1600000 100000\n", 8),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),
        ("100000 50000\n", 2),
    ],
    ids=["no file", "no limit", "four", "more than there are", "one and a half", "half", "another period"],
)
def test_a_quota_limits_the_cores_to_whole_ones_and_at_least_one(quota: str | None, cores: int) -> None:
    assert within(8, quota) == cores


def test_a_huge_machine_gets_as_many_as_may_be_set() -> None:
    assert within(1_024, None) == 256


@pytest.mark.parametrize(("wanted", "chosen"), [(AUTO, 4), (1, 1), (9, 9)])
def test_serve_and_work_take_the_whole_machine_unless_told(wanted: Processes, chosen: int) -> None:
    assert alone(wanted, 4) == chosen


@pytest.mark.parametrize(
    ("cores", "apis", "workers"), [(1, 1, 1), (2, 1, 1), (3, 1, 2), (4, 2, 2), (7, 3, 4), (16, 8, 8)]
)
def test_up_shares_the_cores_and_workers_get_the_odd_one(cores: int, apis: int, workers: int) -> None:
    assert shared(AUTO, AUTO, cores) == (apis, workers)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [((3, AUTO), (3, 5)), ((AUTO, 6), (2, 6)), ((AUTO, 9), (1, 9)), ((9, AUTO), (9, 1)), ((2, 2),) * 2],
)
def test_what_is_set_holds_and_the_other_half_gets_the_rest(
    wanted: tuple[Processes, Processes], chosen: tuple[int, int]
) -> None:
    assert shared(*wanted, cores=8) == chosen


@pytest.mark.parametrize(("text", "number"), [("auto", AUTO), (" 4 ", 4), ("256", 256), (3, 3)])
def test_a_number_or_auto_is_read(text: object, number: Processes) -> None:
    assert read(text) == number


@pytest.mark.parametrize("text", ["0", "257", "-1", "1.5", "²", "AUTOMATIC", "", "many"])
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 256, or auto"):
        read(text)
