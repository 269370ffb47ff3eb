"""What uvicorn looks at ten times a second is known here when it is asked for."""

from email.utils import parsedate_to_datetime

import pytest
import uvicorn

from webhook_gateway.web import server


def test_an_answers_date_is_of_the_second_in_which_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    state = server.Server(uvicorn.Config("nothing")).server_state
    dates = []
    for now in (1_000.9, 1_001.0, 1_001.9, 5_000.0):
        monkeypatch.setattr(server, "time", lambda now=now: now)
        ((name, value),) = state.default_headers
        assert name == b"date"
        dates.append(parsedate_to_datetime(value.decode()).timestamp())
    assert dates == [1_000, 1_001, 1_001, 5_000]
