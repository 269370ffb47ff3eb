"""What an operator's settings allow, as the policy that URLs and addresses are judged by."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from webhook_gateway.host import addresses
from webhook_gateway.rules.targets import Policy, development
from webhook_gateway.settings import Settings, network_and_port

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - to be told from an address, not to listen on


def policy_from(settings: Settings) -> Policy:
    """The policy of this installation. Development allows a laptop's own addresses, and says so by its name."""
    policy = (
        development()
        if settings.development
        else Policy(
            allow_http=settings.allow_http,
            ports=settings.egress_ports,
            allow_ip_literals=settings.allow_ip_literals,
        )
    )
    return replace(
        policy,
        allowed_networks=tuple(network_and_port(text) for text in settings.allow_networks),
        nat64=settings.nat64_prefixes,
        allowed_names=settings.allow_names,
        own_origins=own_origins(settings),
    )


def reached_at(settings: Settings) -> list[str]:
    """The addresses by which other machines reach the API of this one."""
    listening = addresses.of_this_machine() if settings.host in _EVERY_ADDRESS else [settings.host]
    return [address for address in listening if _is_shared(address)]


def own_origins(settings: Settings) -> frozenset[tuple[str, int]]:
    """Where the gateway itself answers: an endpoint there would have it deliver to itself, for ever."""
    hosts = set(_LOOPBACK)
    if settings.host not in _EVERY_ADDRESS:
        hosts.add(settings.host)
    origins = {(host, settings.port) for host in hosts}
    if settings.public_url is not None:
        public = urlsplit(settings.public_url)
        origins.add((str(public.hostname), public.port or (443 if public.scheme == "https" else 80)))
    return frozenset(origins)


def _is_shared(host: str) -> bool:
    try:
        return not ip_address(host).is_loopback
    except ValueError:  # a name
        return False
