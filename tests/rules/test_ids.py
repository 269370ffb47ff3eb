"""TypeIDs, against the specification's own cases."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules import ids

SPECIFIED = [
    ("00000000000000000000000000", UUID(int=0)),
    ("00000000000000000000000001", UUID(int=1)),
    ("0000000000000000000000000a", UUID(int=10)),
    ("0000000000000000000000000g", UUID(int=16)),
    ("00000000000000000000000010", UUID(int=32)),
    ("7zzzzzzzzzzzzzzzzzzzzzzzzz", UUID(int=2**128 - 1)),
    ("0123456789abcdefghjkmnpqrs", UUID("0110c853-1d09-52d8-d73e-1194e95b5f19")),
    ("01h455vb4pex5vsknk084sn02q", UUID("01890a5d-ac96-774b-bcce-b302099a8057")),
]


@pytest.mark.parametrize(("suffix", "value"), SPECIFIED)
def test_ids_are_written_and_read_as_the_specification_says(suffix: str, value: UUID) -> None:
    assert ids.render(ids.EVENT, value) == f"evt_{suffix}"
    assert ids.parse(ids.EVENT, f"evt_{suffix}") == value


@given(st.uuids())
def test_every_id_comes_back(value: UUID) -> None:
    assert ids.parse(ids.DELIVERY, ids.render(ids.DELIVERY, value)) == value


@given(st.uuids(), st.uuids())
def test_ids_sort_as_their_uuids_do(one: UUID, other: UUID) -> None:
    assert (ids.render("x", one) < ids.render("x", other)) == (one < other)


@given(st.text())
def test_whatever_else_is_no_id_and_nothing_worse(text: str) -> None:
    with pytest.raises(ids.NotAnId):
        ids.parse(ids.EVENT, text)


@pytest.mark.parametrize(
    "text",
    [
        "dlv_01h455vb4pex5vsknk084sn02q",
        "evt_81h455vb4pex5vsknk084sn02q",
        "evt_01h455vb4pex5vsknk084sn02",
        "evt_01H455VB4PEX5VSKNK084SN02Q",
        "evt_01h455vb4pex5vsknk084sn02l",
        "evt_01h455vb4pex5vsknk084sn02\u0660",
        "01h455vb4pex5vsknk084sn02q",
        "evt_",
    ],
)
def test_another_kind_alphabet_or_length_is_refused(text: str) -> None:
    with pytest.raises(ids.NotAnId):
        ids.parse(ids.EVENT, text)


def test_an_id_tells_when_it_was_made() -> None:
    # The UUIDv7 of RFC 9562, appendix A.6.
    value = UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
    assert ids.moment_of(value) == datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)
    assert ids.moment_of(UUID(int=value.int + (1 << 80))) == datetime(2022, 2, 22, 19, 22, 22, 1_000, tzinfo=UTC)
