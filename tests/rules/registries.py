"""Addresses at the edges of every network that is special, and an oracle of its own that says which are public.

It reads the standard library's registries and the RFCs' prefixes, independently of the rules.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import strategies as st

STRICTER_THAN_IANA = [ip_network("168.63.129.16/32"), ip_network("192.88.99.0/24"), ip_network("192.0.0.0/24")]


def oracle_says_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        special = not address.is_global or address.is_multicast or address.is_reserved
        return not special and not any(address in network for network in STRICTER_THAN_IANA)
    words = [int(word, 16) for word in address.exploded.split(":")]
    tunnelled = words[0] == 0x2002 or (words[0] == 0x2001 and words[1] < 0x200)  # 6to4; Teredo, ORCHID and the like
    isatap = words[5] == 0x5EFE and words[4] in (0, 0x0100, 0x0200, 0x0300)
    documentation = (words[0], words[1]) == (0x2001, 0xDB8) or (words[0] == 0x3FFF and words[1] < 0x1000)
    return 0x2000 <= words[0] <= 0x3FFF and not (tunnelled or isatap or documentation)


INTERESTING = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32", "0.0.0.0/0"),
]
INTERESTING_IPV6 = [
    *("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"),
    *("2001::/23", "2001:db8::/32", "3fff::/20", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "100::/64"),
    *("5f00::/16", "2620:4f:8000::/48", "2606:4700::5efe:0:0/96", "2606:4700::200:5efe:0:0/96", "2000::/3", "::/0"),
]


def ends(network: str) -> list[IPv4Address] | list[IPv6Address]:
    """The address before a network, its first and its last, and the one after it."""
    read = ip_network(network)
    first, last = int(read.network_address), int(read.broadcast_address)
    numbers = [max(first - 1, 0), first, last, min(last + 1, 2**read.max_prefixlen - 1)]
    return [*map(IPv4Address, numbers)] if read.version == 4 else [*map(IPv6Address, numbers)]


def around(network: str) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    """Addresses in a network, at its ends, and just outside."""
    return st.one_of(st.sampled_from(ends(network)), st.ip_addresses(network=network))


addresses_v4 = st.sampled_from(INTERESTING).flatmap(around)
addresses = st.one_of(addresses_v4, st.sampled_from(INTERESTING_IPV6).flatmap(around))
