"""Which addresses this machine has."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

_LOCAL = re.compile(r"([0-9.]+)\n +/32 host LOCAL")


def of_this_machine() -> list[str]:
    """Those that others may reach it by, as the kernel lists them (proc(5)); none where it doesn't."""
    found: set[IPv4Address | IPv6Address] = set()
    with suppress(OSError):
        found.update(map(IPv4Address, _LOCAL.findall(Path("/proc/net/fib_trie").read_text())))
    with suppress(OSError):
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
        found.update(IPv6Address(bytes.fromhex(line.split()[0])) for line in lines)
    return sorted(str(address) for address in found if not address.is_loopback and not address.is_link_local)
