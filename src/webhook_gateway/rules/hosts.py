"""How the host of a URL is read, by the WHATWG's rules, and which names are not public.

A last label that is a number makes the host an IPv4 address, in whatever spelling.
"""

from __future__ import annotations

import re
import unicodedata
from ipaddress import IPv4Address, IPv6Address

from .addresses import classify
from .denials import HOST_LIMIT, LABEL_LIMIT, Denial, Denied

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_OTHER_DOTS = str.maketrans(dict.fromkeys("\u3002\uff0e\uff61", "."))
_DEVIATIONS = frozenset("\u00df\u1e9e\u03c2")  # IDNA 2003 and 2008 read sharp s and final sigma as different names


def read_ipv6(written: str) -> IPv6Address | Denied:
    """What stands between brackets."""
    address, percent, _ = written.partition("%")
    try:
        read = IPv6Address(address)
    except ValueError:
        return Denied(Denial.MALFORMED_HOST)
    if percent:  # a zone names one of our own interfaces
        return Denied(classify(read) or Denial.MALFORMED_HOST)
    return read


def read_name(written: str) -> str | IPv4Address | Denied:
    """A host name in ASCII (punycode), lower case, without a trailing dot; or the address that it stands for."""
    name = written
    if not name.isascii():
        if not _DEVIATIONS.isdisjoint(name):
            return Denied(Denial.AMBIGUOUS_HOST)
        name = unicodedata.normalize("NFKC", name).translate(_OTHER_DOTS)
    if not name.isascii():
        try:
            name = ".".join(label.encode("idna").decode("ascii") if label else "" for label in name.split("."))
        except UnicodeError as error:
            return Denied(Denial.LABEL_TOO_LONG if "too long" in str(error) else Denial.MALFORMED_HOST)
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


def classify_name(name: str) -> Denial | None:
    """The name of what makes a host name (as `read_name` gives it) not public, or None for a public one."""
    if name in _METADATA_NAMES:
        return Denial.METADATA
    if _LOCALHOST.fullmatch(name):
        return Denial.LOOPBACK
    if "." not in name:
        return Denial.SINGLE_LABEL
    return Denial.LOCAL_NAME if _LOCAL_NAME.fullmatch(name) else None


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
