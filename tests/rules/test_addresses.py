"""Which addresses are public, and what is hidden in them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rules.registries import INTERESTING, INTERESTING_IPV6, addresses, addresses_v4, ends, oracle_says_public
from webhook_gateway.rules.addresses import classify, translated_ipv4
from webhook_gateway.rules.targets import Policy, judge


@pytest.mark.parametrize("network", INTERESTING + INTERESTING_IPV6)
def test_a_network_begins_and_ends_where_the_registries_say_so(network: str) -> None:
    for address in ends(network):
        assert (classify(address) is None) == oracle_says_public(address), address


@given(addresses)
def test_an_address_is_public_exactly_where_the_registries_say_so(address: IPv4Address | IPv6Address) -> None:
    assert (classify(address) is None) == oracle_says_public(address)
    assert (judge(str(address), 443, Policy()) is None) == oracle_says_public(address)


HIDING = {
    "mapped, RFC 4291": "::ffff:{}",
    "compatible, RFC 4291": "::{}",
    "SIIT, RFC 2765": "::ffff:0:{}",
    "NAT64, RFC 6052": "64:ff9b::{}",
    "NAT64 of one's own, RFC 8215": "64:ff9b:1:a:0:b:{}",
    "6to4, RFC 3056": "2002:{high:x}:{low:x}:1::1",
    "Teredo, RFC 4380": "2001:0:4136:e378:8000:63bf:{unhigh:x}:{unlow:x}",
    "ISATAP, RFC 5214": "2606:4700::5efe:{}",
    "ISATAP, of a global address": "2606:4700::200:5efe:{}",
    "ISATAP, of a group": "2606:4700::100:5efe:{}",
    "ISATAP, of a global group": "2606:4700::300:5efe:{}",
}


@pytest.mark.parametrize("form", HIDING.values(), ids=HIDING)
@given(hidden=addresses_v4 | st.ip_addresses(v=4))
def test_an_address_that_hides_another_is_what_the_other_is_and_never_public(form: str, hidden: IPv4Address) -> None:
    high, low = divmod(int(hidden), 2**16)
    hiding = form.format(hidden, high=high, low=low, unhigh=0xFFFF - high, unlow=0xFFFF - low)
    if hiding not in ("::0.0.0.0", "::0.0.0.1"):  # these two are IPv6's own
        assert classify(ip_address(hiding)) == (classify(hidden) or "embedded_ipv4")


@pytest.mark.parametrize(("address", "reason"), [("::", "unspecified"), ("::1", "loopback"), ("::2", "unspecified")])
def test_the_first_two_addresses_are_ipv6s_own_and_the_third_hides_one(address: str, reason: str) -> None:
    assert classify(IPv6Address(address)) == reason


@pytest.mark.parametrize(
    ("prefix", "address"),
    [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ],
)
def test_what_is_behind_a_nat64_prefix_is_what_the_standards_own_table_says(prefix: str, address: str) -> None:
    # RFC 6052, section 2.4.
    assert translated_ipv4(IPv6Address(address), IPv6Network(prefix)) == IPv4Address("192.0.2.33")
