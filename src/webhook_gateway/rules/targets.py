"""Which URLs and addresses the gateway may connect to, and the name of every refusal.

A subscriber chooses where its events go, so a URL is hostile until it was judged. It is judged twice: `parse` when an
endpoint is registered, `judge` for every address that its name resolves to, each time that a connection is opened.

Host names follow the WHATWG URL rules (a last label that is a number makes the host an IPv4 address, in whatever
spelling), addresses the IANA special-purpose registries (RFC 6890): for IPv6 only 2000::/3 is public.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import quote

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

URL_LIMIT = 2048
LABEL_LIMIT = 63
HOST_LIMIT = 253


class Denial(StrEnum):
    """Every reason for which a URL, a name or an address is refused. `REMEDIES` says what to do about each."""

    URL_TOO_LONG = "url_too_long"
    FORBIDDEN_CHARACTER = "forbidden_character"
    MALFORMED_URL = "malformed_url"
    FORBIDDEN_SCHEME = "forbidden_scheme"
    HTTPS_REQUIRED = "https_required"
    USERINFO = "userinfo"
    FRAGMENT = "fragment"
    MALFORMED_HOST = "malformed_host"
    AMBIGUOUS_HOST = "ambiguous_host"
    HOST_TOO_LONG = "host_too_long"
    LABEL_TOO_LONG = "label_too_long"
    IP_LITERAL = "ip_literal"
    SINGLE_LABEL = "single_label"
    LOCAL_NAME = "local_name"
    MALFORMED_PORT = "malformed_port"
    FORBIDDEN_PORT = "forbidden_port"
    OWN_ORIGIN = "own_origin"
    NOT_AN_ADDRESS = "not_an_address"
    METADATA = "metadata"
    LOOPBACK = "loopback"
    UNSPECIFIED = "unspecified"
    LINK_LOCAL = "link_local"
    PRIVATE = "private"
    CGNAT = "cgnat"
    BENCHMARKING = "benchmarking"
    DOCUMENTATION = "documentation"
    MULTICAST = "multicast"
    BROADCAST = "broadcast"
    RESERVED = "reserved"
    EMBEDDED_IPV4 = "embedded_ipv4"


REMEDIES: dict[Denial, str] = {
    Denial.URL_TOO_LONG: f"Use a URL of at most {URL_LIMIT:,} characters.",
    Denial.FORBIDDEN_CHARACTER: "Remove white space, control characters and backslashes, or percent-encode them.",
    Denial.MALFORMED_URL: "Write the whole URL, as in https://partner.example.com/webhooks.",
    Denial.FORBIDDEN_SCHEME: "Use an https:// URL.",
    Denial.HTTPS_REQUIRED: "Use https://; events about patients are not sent unencrypted.",
    Denial.USERINFO: "Remove user name and password from the URL; use a custom header for credentials.",
    Denial.FRAGMENT: "Remove the fragment (from # on); it is never sent.",
    Denial.MALFORMED_HOST: "Check the spelling of the host name.",
    Denial.AMBIGUOUS_HOST: "Write the host name in its ASCII (xn--) form; software reads this spelling in two ways.",
    Denial.HOST_TOO_LONG: f"Use a host name of at most {HOST_LIMIT} characters.",
    Denial.LABEL_TOO_LONG: f"Use a host name whose parts between dots have at most {LABEL_LIMIT} characters.",
    Denial.IP_LITERAL: "Use a host name instead of an IP address, so that its certificate can be checked.",
    Denial.SINGLE_LABEL: "Use a full host name with a domain; an operator can allow an internal name.",
    Denial.LOCAL_NAME: "Use a public host name; an operator can allow an internal one.",
    Denial.MALFORMED_PORT: "Use a port from 1 to 65535.",
    Denial.FORBIDDEN_PORT: "Use one of the allowed ports (443 or 8443 unless the operator changed them).",
    Denial.OWN_ORIGIN: "Use the partner's URL; the gateway does not deliver to itself.",
    Denial.NOT_AN_ADDRESS: "Check the DNS records of the host; one of its answers is not an IP address.",
    Denial.METADATA: "Use the partner's URL; addresses of cloud metadata services are always refused.",
    Denial.LOOPBACK: "Use an address that other machines can reach; loopback is for development only.",
    Denial.UNSPECIFIED: "Use the address of a machine; 0.0.0.0 and :: name none.",
    Denial.LINK_LOCAL: "Use a routable address; link-local addresses are always refused.",
    Denial.PRIVATE: "Use a public address, or ask the operator to allow this private network.",
    Denial.CGNAT: "Use a public address, or ask the operator to allow this carrier's network (100.64.0.0/10).",
    Denial.BENCHMARKING: "Use a public address; this network is set aside for benchmarks.",
    Denial.DOCUMENTATION: "Replace the example address by a real one.",
    Denial.MULTICAST: "Use the address of one machine; multicast is always refused.",
    Denial.BROADCAST: "Use the address of one machine; broadcast is always refused.",
    Denial.RESERVED: "Use a public address; this one is reserved.",
    Denial.EMBEDDED_IPV4: "Use the IPv4 address itself, or ask the operator to allow this translation prefix.",
}


@dataclass(frozen=True, slots=True)
class Denied:
    """A refusal. ``reason`` is the value of a `Denial`."""

    reason: str

    @property
    def remedy(self) -> str:
        return REMEDIES[Denial(self.reason)]


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that policy allows. ``host`` is ASCII (punycode), lower case, without brackets or a trailing dot."""

    scheme: str
    host: str
    port: int
    url: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator allows. The defaults are for production.

    ``ports`` is None for any port. ``allowed_networks`` are private networks that partners live in, each with the port
    that is open there or None for any; link-local, loopback, metadata and the like stay forbidden even so.
    ``allowed_names`` are internal names, allowed with everything below them: ``lab.local``, or ``partner`` for one
    that has no dot. ``own_origins`` are the gateway's own (host or address, port).
    """

    allow_http: bool = False
    ports: frozenset[int] | None = frozenset({443, 8443})
    allow_ip_literals: bool = False
    allow_loopback: bool = False
    allowed_networks: tuple[tuple[Network, int | None], ...] = ()
    allowed_names: frozenset[str] = frozenset()
    own_origins: frozenset[tuple[str, int]] = frozenset()


def development() -> Policy:
    """A policy for a developer's own machine: plain HTTP, loopback, IP literals and any port."""
    return Policy(allow_http=True, ports=None, allow_ip_literals=True, allow_loopback=True)


def parse(url: str, policy: Policy) -> Target | Denied:
    """Read a URL as strictly as the strictest client would, or say why it is refused. Never raises.

    A name that passes may still resolve to an address that `judge` refuses.
    """
    if len(url) > URL_LIMIT:
        return Denied(Denial.URL_TOO_LONG)
    if any(map(_forbidden, url)):
        return Denied(Denial.FORBIDDEN_CHARACTER)
    parts = _URL.fullmatch(url)
    if parts is None:
        return Denied(Denial.MALFORMED_URL)
    scheme, authority, rest = parts["scheme"].lower(), parts["authority"], parts["rest"]
    match scheme:
        case "https":
            default_port = 443
        case "http" if policy.allow_http:
            default_port = 80
        case "http":
            return Denied(Denial.HTTPS_REQUIRED)
        case _:
            return Denied(Denial.FORBIDDEN_SCHEME)
    if "#" in rest:
        return Denied(Denial.FRAGMENT)
    if "@" in authority:
        return Denied(Denial.USERINFO)
    split = _AUTHORITY.fullmatch(authority)
    if split is None:
        return Denied(Denial.MALFORMED_HOST)

    port = _read_port(split["port"], default_port)
    if port is None:
        return Denied(Denial.MALFORMED_PORT)
    host = _read_ipv6(split["ipv6"]) if split["ipv6"] is not None else _read_name(split["name"])
    if isinstance(host, Denied):
        return host
    denied = _judge_name(host, policy) if isinstance(host, str) else _judge_literal(host, port, policy)
    if denied is None and not _port_possible(port, policy):
        denied = Denied(Denial.FORBIDDEN_PORT)
    if denied is None and (str(host), port) in policy.own_origins:
        denied = Denied(Denial.OWN_ORIGIN)
    if denied is not None:
        return denied

    written_host = f"[{host}]" if isinstance(host, IPv6Address) else str(host)
    written_port = "" if port == default_port else f":{port}"
    path = quote(_STRAY_PERCENT.sub("%25", rest), safe=_KEPT)
    if not path.startswith("/"):
        path = "/" + path
    return Target(scheme, str(host), port, f"{scheme}://{written_host}{written_port}{path}")


def judge(address: str, port: int, policy: Policy) -> Denied | None:
    """Whether a connection may be opened to an address, as text, and a port; None means that it may. Never raises."""
    try:
        read = ip_address(address)
    except ValueError:
        return Denied(Denial.NOT_AN_ADDRESS)
    if (str(read), port) in policy.own_origins:
        return Denied(Denial.OWN_ORIGIN)
    reason = _classify(read)
    if reason is Denial.LOOPBACK and policy.allow_loopback and _inner(read) is None:
        return None
    if reason in _NEVER:
        return Denied(reason)
    if _granted(read, port, policy):
        return None
    if reason is not None:
        return Denied(reason)
    if policy.ports is not None and port not in policy.ports:
        return Denied(Denial.FORBIDDEN_PORT)
    return None


def classify(address: str | Address) -> str | None:
    """The name of what makes an address not public, or None for a public one.

    An IPv4 address hidden in an IPv6 one gives its own reason; where it is public, the hiding itself is the reason.
    """
    if isinstance(address, str):
        try:
            address = ip_address(address)
        except ValueError:
            return Denial.NOT_AN_ADDRESS
    return _classify(address)


# URLs


_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)")
_AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]*))?")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_KEPT = "%/?:@!$&'()*+,;=-._~[]"


def _forbidden(character: str) -> bool:
    if character.isascii():
        return character <= " " or character in "\\\x7f"
    return unicodedata.category(character)[0] in "CZ"  # control, format, surrogate, unassigned; separators


def _read_port(written: str | None, default: int) -> int | None:
    if not written:
        return default
    port = int(written) if len(written) <= 5 else 0
    return port if 0 < port <= 65535 else None


def _port_possible(port: int, policy: Policy) -> bool:
    """A network that allows another port is met only when the name was resolved, so `judge` looks again."""
    return policy.ports is None or port in policy.ports or any(p in (None, port) for _, p in policy.allowed_networks)


# Hosts


_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_OTHER_DOTS = str.maketrans(dict.fromkeys("\u3002\uff0e\uff61", "."))
_DEVIATIONS = frozenset("\u00df\u1e9e\u03c2")  # IDNA 2003 and 2008 read sharp s and final sigma as different names


def _read_ipv6(written: str) -> IPv6Address | Denied:
    address, percent, _ = written.partition("%")
    try:
        read = IPv6Address(address)
    except ValueError:
        return Denied(Denial.MALFORMED_HOST)
    if percent:  # a zone names one of our own interfaces
        return Denied(_classify(read) or Denial.MALFORMED_HOST)
    return read


def _read_name(written: str) -> str | IPv4Address | Denied:
    name = written
    if not name.isascii():
        if not _DEVIATIONS.isdisjoint(name):
            return Denied(Denial.AMBIGUOUS_HOST)
        name = unicodedata.normalize("NFKC", name).translate(_OTHER_DOTS)
    if not name.isascii():
        try:
            name = ".".join(label.encode("idna").decode("ascii") if label else "" for label in name.split("."))
        except UnicodeError:
            long = any(len(label.encode("utf-8")) > LABEL_LIMIT for label in name.split("."))
            return Denied(Denial.LABEL_TOO_LONG if long else Denial.MALFORMED_HOST)
    name = name.lower().removesuffix(".")
    labels = name.split(".")
    if any(len(label) > LABEL_LIMIT for label in labels):
        return Denied(Denial.LABEL_TOO_LONG)
    if len(name) > HOST_LIMIT:
        return Denied(Denial.HOST_TOO_LONG)
    if not all(map(_LABEL.fullmatch, labels)):
        return Denied(Denial.MALFORMED_HOST)
    return _read_ipv4(labels) if _NUMBER.fullmatch(labels[-1]) else name


def _read_ipv4(labels: list[str]) -> IPv4Address | Denied:
    """Read decimal, octal, hexadecimal and short forms, as inet_aton() and browsers do."""
    try:
        numbers = [_read_number(label) for label in labels]
    except ValueError:
        return Denied(Denial.MALFORMED_HOST)
    *high, low = numbers
    if len(high) > 3 or any(number > 255 for number in high) or low >= 256 ** (4 - len(high)):
        return Denied(Denial.MALFORMED_HOST)
    return IPv4Address(low + sum(number << (24 - 8 * place) for place, number in enumerate(high)))


def _read_number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if label.startswith("0") else 10)


_LOCAL_SUFFIXES = (
    *("localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan", "home.arpa"),
    *("svc", "cluster", "pod", "consul", "docker", "onion"),
)
_LOCAL_NAME = re.compile(rf"(?:.*\.)?(?:{'|'.join(map(re.escape, _LOCAL_SUFFIXES))})")
_LOCALHOST = re.compile(r"(?:.*\.)?localhost")
_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
        "metadata.platformequinix.com",
        "metadata.packet.net",
        "metadata.tencentyun.com",
        "metadata.oraclecloud.com",
        "rancher-metadata",
    }
)


def _judge_name(name: str, policy: Policy) -> Denied | None:
    if name in _METADATA_NAMES:
        return Denied(Denial.METADATA)
    if _LOCALHOST.fullmatch(name):
        return None if policy.allow_loopback else Denied(Denial.LOOPBACK)
    if any(name == allowed or name.endswith("." + allowed) for allowed in policy.allowed_names):
        return None
    if "." not in name:
        return Denied(Denial.SINGLE_LABEL)
    if _LOCAL_NAME.fullmatch(name):
        return Denied(Denial.LOCAL_NAME)
    return None


def _judge_literal(address: Address, port: int, policy: Policy) -> Denied | None:
    denied = judge(str(address), port, policy)
    if denied is None and not policy.allow_ip_literals:
        return Denied(Denial.IP_LITERAL)
    return denied


# Addresses


_NEVER = frozenset(
    {
        Denial.METADATA,
        Denial.LOOPBACK,
        Denial.UNSPECIFIED,
        Denial.LINK_LOCAL,
        Denial.MULTICAST,
        Denial.BROADCAST,
    }
)

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


def _classify(address: Address) -> Denial | None:
    if isinstance(address, IPv4Address):
        return next((reason for network, reason in _IPV4_TABLE if address in network), None)
    reason = next((reason for network, reason in _IPV6_TABLE if address in network), None)
    if reason is not None and reason is not Denial.RESERVED:
        return reason
    inner = _inner(address)
    if inner is not None:
        return _classify(inner) or Denial.EMBEDDED_IPV4
    return reason or (None if address in _PUBLIC_IPV6 else Denial.RESERVED)


def _inner(address: Address) -> IPv4Address | None:
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


def _granted(address: Address, port: int, policy: Policy) -> bool:
    """Whether an operator allows the address; for a hidden IPv4 address both it and what hides it must pass."""
    if not any(address in network and allowed in (None, port) for network, allowed in policy.allowed_networks):
        return False
    inner = _inner(address)
    return inner is None or judge(str(inner), port, policy) is None
