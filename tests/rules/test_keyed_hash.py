import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_gateway.rules.keyed_hash import KeyedHash


@pytest.mark.parametrize("length", [0, 1, 32, 63, 64, 65, 200])
@given(texts=st.lists(st.binary(max_size=200), min_size=2, max_size=3))
def test_a_keyed_hash_is_the_librarys_hmac_however_often_it_is_used(length: int, texts: list[bytes]) -> None:
    key = bytes(range(length))
    keyed = KeyedHash(key)
    assert [keyed.digest(text) for text in texts] == [hmac.digest(key, text, hashlib.sha256) for text in texts]
