"""Which URLs and addresses the gateway may connect to.

A subscriber chooses where its events go, so a URL is hostile until it was judged. It is judged twice: `parse` when an
endpoint is registered, `judge` for every address that its name resolves to, each time that a connection is opened.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from urllib.parse import quote

from .addresses import Address, Network, classify, embedded_ipv4, refused_whole, translated_ipv4
from .denials import URL_LIMIT, Denial, Denied
from .hosts import classify_name, read_ipv6, read_name

MASK = "?…"
"""Instead of a query."""


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
    ``nat64`` are the translation prefixes of one's own network: an address in them is judged as the IPv4 one behind it.
    ``allowed_names`` are internal names, allowed with everything below them: ``lab.local``, or ``partner`` for one
    that has no dot. ``own_origins`` are the gateway's own (host or address, port).
    """

    allow_http: bool = False
    ports: frozenset[int] | None = frozenset({443, 8443})
    allow_ip_literals: bool = False
    allow_loopback: bool = False
    allowed_networks: tuple[tuple[Network, int | None], ...] = ()
    nat64: tuple[IPv6Network, ...] = ()
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
    host = read_ipv6(split["ipv6"]) if split["ipv6"] is not None else read_name(split["name"])
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


def masked(url: str) -> str:
    """For who may not change it: a query may hold a secret."""
    shown, mark, _ = url.partition("?")
    return shown + (MASK if mark else "")


def judge(address: str, port: int, policy: Policy) -> Denied | None:
    """Whether a connection may be opened to an address, as text, and a port; None means that it may. Never raises."""
    try:
        read = ip_address(address)
    except ValueError:
        return Denied(Denial.NOT_AN_ADDRESS)
    if (str(read), port) in policy.own_origins:
        return Denied(Denial.OWN_ORIGIN)
    prefix = next((prefix for prefix in policy.nat64 if read in prefix), None)
    if prefix is not None and isinstance(read, IPv6Address):
        return judge(str(translated_ipv4(read, prefix)), port, policy)
    reason = classify(read)
    if reason is Denial.LOOPBACK and policy.allow_loopback and embedded_ipv4(read) is None:
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


def never_opens(network: Network) -> bool:
    """Whether allowing a network has no effect, since nothing in it is ever connected to."""
    return refused_whole(network) in _NEVER


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


def _judge_name(name: str, policy: Policy) -> Denied | None:
    denial = classify_name(name)
    if denial is Denial.LOOPBACK:
        permitted = policy.allow_loopback
    else:
        permitted = denial is not Denial.METADATA and _is_allowed(name, policy)
    return None if denial is None or permitted else Denied(denial)


def _is_allowed(name: str, policy: Policy) -> bool:
    return any(name == allowed or name.endswith("." + allowed) for allowed in policy.allowed_names)


def _judge_literal(address: Address, port: int, policy: Policy) -> Denied | None:
    denied = judge(str(address), port, policy)
    if denied is None and not policy.allow_ip_literals:
        return Denied(Denial.IP_LITERAL)
    return denied


def _granted(address: Address, port: int, policy: Policy) -> bool:
    """Whether an operator allows the address; for a hidden IPv4 address both it and what hides it must pass."""
    if not any(address in network and allowed in (None, port) for network, allowed in policy.allowed_networks):
        return False
    inner = embedded_ipv4(address)
    return inner is None or judge(str(inner), port, policy) is None


_NEVER = frozenset(
    {Denial.METADATA, Denial.LOOPBACK, Denial.UNSPECIFIED, Denial.LINK_LOCAL, Denial.MULTICAST, Denial.BROADCAST}
)
