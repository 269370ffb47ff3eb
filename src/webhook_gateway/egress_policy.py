"""What an operator's settings allow, as the policy that URLs and addresses are judged by."""

from __future__ import annotations

from .rules.targets import Policy, development
from .settings import Settings, network_and_port


def policy_from(settings: Settings) -> Policy:
    """The policy of this installation. Development allows a laptop's own addresses, and says so by its name."""
    networks = tuple(network_and_port(text) for text in settings.allow_networks)
    if settings.development:
        laptop = development()
        return Policy(
            allow_http=laptop.allow_http,
            ports=laptop.ports,
            allow_ip_literals=laptop.allow_ip_literals,
            allow_loopback=laptop.allow_loopback,
            allowed_networks=networks,
        )
    return Policy(
        allow_http=settings.allow_http,
        ports=settings.egress_ports,
        allow_ip_literals=settings.allow_ip_literals,
        allowed_networks=networks,
    )
