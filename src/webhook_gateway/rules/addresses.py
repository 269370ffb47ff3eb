"""Which addresses are public, after the IANA special-purpose registries (RFC 6890): of IPv6 only 2000::/3."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from .denials import Denial

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def classify(address: Address) -> Denial | None:
    """The name of what makes an address not public, or None for a public one.

    An IPv4 address hidden in an IPv6 one gives its own reason; where it is public, the hiding itself is the reason.
    """
    if isinstance(address, IPv4Address):
        return next((reason for network, reason in _IPV4_TABLE if address in network), None)
    reason = next((reason for network, reason in _IPV6_TABLE if address in network), None)
    if reason is not None and reason is not Denial.RESERVED:
        return reason
    inner = embedded_ipv4(address)
    if inner is not None:
        return classify(inner) or Denial.EMBEDDED_IPV4
    return reason or (None if address in _PUBLIC_IPV6 else Denial.RESERVED)


def refused_whole(network: Network) -> Denial | None:
    """The name of what makes every address of a network one that is not public; None where they differ."""
    table: Iterable[tuple[Network, Denial]] = _IPV4_TABLE if isinstance(network, IPv4Network) else _IPV6_TABLE
    return next((reason for larger, reason in table if larger.supernet_of(network)), None)  # type: ignore[arg-type]


def translated_ipv4(address: IPv6Address, prefix: IPv6Network) -> IPv4Address:
    """The IPv4 address behind one of a NAT64 prefix (RFC 6052, section 2.2, which leaves bits 64 to 71 out)."""
    number = int(address)
    if prefix.prefixlen == 96:
        return IPv4Address(number & 0xFFFFFFFF)
    without = number >> 64 << 56 | number & (1 << 56) - 1
    return IPv4Address(without >> 88 - prefix.prefixlen & 0xFFFFFFFF)


def embedded_ipv4(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one is translated or tunnelled to."""
    if isinstance(address, IPv4Address) or int(address) < 2:
        return None
    number = int(address)
    for network, shift in _EMBEDDINGS:
        if address in network:
            return IPv4Address(number >> shift & 0xFFFFFFFF)
    if address in _TEREDO:
        return IPv4Address(number & 0xFFFFFFFF ^ 0xFFFFFFFF)
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(number & 0xFFFFFFFF)
    return None


# The first network that holds an address names it, so exceptions stand before the network that they are in.
_IPV4_TABLE: tuple[tuple[IPv4Network, Denial], ...] = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("169.254.169.254/32", Denial.METADATA),  # AWS, Azure, Google, OpenStack, Oracle, DigitalOcean …
        ("169.254.170.2/32", Denial.METADATA),  # AWS containers
        ("169.254.170.23/32", Denial.METADATA),  # AWS pods
        ("169.254.42.42/32", Denial.METADATA),  # Scaleway
        ("100.100.100.200/32", Denial.METADATA),  # Alibaba
        ("192.0.0.192/32", Denial.METADATA),  # Oracle
        ("168.63.129.16/32", Denial.METADATA),  # Azure's host, on a public address
        ("0.0.0.0/8", Denial.UNSPECIFIED),
        ("10.0.0.0/8", Denial.PRIVATE),
        ("100.64.0.0/10", Denial.CGNAT),
        ("127.0.0.0/8", Denial.LOOPBACK),
        ("169.254.0.0/16", Denial.LINK_LOCAL),
        ("172.16.0.0/12", Denial.PRIVATE),
        ("192.0.0.0/24", Denial.RESERVED),
        ("192.0.2.0/24", Denial.DOCUMENTATION),
        ("192.88.99.0/24", Denial.RESERVED),  # 6to4 relays
        ("192.168.0.0/16", Denial.PRIVATE),
        ("198.18.0.0/15", Denial.BENCHMARKING),
        ("198.51.100.0/24", Denial.DOCUMENTATION),
        ("203.0.113.0/24", Denial.DOCUMENTATION),
        ("224.0.0.0/4", Denial.MULTICAST),
        ("255.255.255.255/32", Denial.BROADCAST),
        ("240.0.0.0/4", Denial.RESERVED),
    )
)

_IPV6_TABLE: tuple[tuple[IPv6Network, Denial], ...] = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("fd00:ec2::254/128", Denial.METADATA),  # AWS
        ("fd00:ec2::23/128", Denial.METADATA),  # AWS pods
        ("fd20:ce::254/128", Denial.METADATA),  # Google
        ("fd00:c1::a9fe:a9fe/128", Denial.METADATA),  # Oracle
        ("fd00:42::42/128", Denial.METADATA),  # Scaleway
        ("fe80::a9fe:a9fe/128", Denial.METADATA),  # OpenStack
        ("::/128", Denial.UNSPECIFIED),
        ("::1/128", Denial.LOOPBACK),
        ("fe80::/10", Denial.LINK_LOCAL),
        ("fec0::/10", Denial.PRIVATE),  # site-local
        ("fc00::/7", Denial.PRIVATE),
        ("ff00::/8", Denial.MULTICAST),
        ("2001:2::/48", Denial.BENCHMARKING),
        ("2001:db8::/32", Denial.DOCUMENTATION),
        ("3fff::/20", Denial.DOCUMENTATION),
        ("100::/64", Denial.RESERVED),  # discard
        ("2001::/23", Denial.RESERVED),  # IETF protocols, ORCHID
    )
)

_PUBLIC_IPV6 = IPv6Network("2000::/3")

# Where RFC 4291, 6052, 8215, 7915, 3056 and 4380 put an IPv4 address: the prefix, and how far to shift it down.
_EMBEDDINGS: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (IPv6Network("::/96"), 0),  # compatible
    (IPv6Network("::ffff:0:0:0/96"), 0),  # SIIT
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("64:ff9b:1::/48"), 0),  # NAT64, local use
    (IPv6Network("2002::/16"), 80),  # 6to4
)
_TEREDO = IPv6Network("2001::/32")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE, 0x01005EFE, 0x03005EFE})
