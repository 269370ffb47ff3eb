"""Every refusal of a URL or an address by name, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from .explained import Explained

URL_LIMIT = 2048
LABEL_LIMIT = 63
HOST_LIMIT = 253
"""Characters; those of a host name and its labels are RFC 1035's (section 2.3.4), without the trailing dot."""


class Denial(Explained):
    """The sentence is the remedy."""

    URL_TOO_LONG = "url_too_long", f"Use a URL of at most {URL_LIMIT:,} characters."
    FORBIDDEN_CHARACTER = (
        "forbidden_character",
        "Remove white space, control characters and backslashes, or percent-encode them.",
    )
    MALFORMED_URL = "malformed_url", "Write the whole URL, as in https://partner.example.com/webhooks."
    FORBIDDEN_SCHEME = "forbidden_scheme", "Use an https:// URL."
    HTTPS_REQUIRED = "https_required", "Use https://; events about patients are not sent unencrypted."
    USERINFO = "userinfo", "Remove user name and password from the URL; use a custom header for credentials."
    FRAGMENT = "fragment", "Remove the fragment (from # on); it is never sent."
    MALFORMED_HOST = "malformed_host", "Check the spelling of the host name."
    AMBIGUOUS_HOST = (
        "ambiguous_host",
        "Write the host name in its ASCII (xn--) form; software reads this spelling in two ways.",
    )
    HOST_TOO_LONG = "host_too_long", f"Use a host name of at most {HOST_LIMIT} characters."
    LABEL_TOO_LONG = (
        "label_too_long",
        f"Use a host name whose parts between dots have at most {LABEL_LIMIT} characters.",
    )
    IP_LITERAL = "ip_literal", "Use a host name instead of an IP address, so that its certificate can be checked."
    SINGLE_LABEL = "single_label", "Use a full host name with a domain; an operator can allow an internal name."
    LOCAL_NAME = "local_name", "Use a public host name; an operator can allow an internal one."
    MALFORMED_PORT = "malformed_port", "Use a port from 1 to 65535."
    FORBIDDEN_PORT = "forbidden_port", "Use one of the allowed ports (443 or 8443 unless the operator changed them)."
    OWN_ORIGIN = "own_origin", "Use the partner's URL; the gateway does not deliver to itself."
    NOT_AN_ADDRESS = "not_an_address", "Check the DNS records of the host; one of its answers is not an IP address."
    METADATA = "metadata", "Use the partner's URL; addresses of cloud metadata services are always refused."
    LOOPBACK = "loopback", "Use an address that other machines can reach; loopback is for development only."
    UNSPECIFIED = "unspecified", "Use the address of a machine; 0.0.0.0 and :: name none."
    LINK_LOCAL = "link_local", "Use a routable address; link-local addresses are always refused."
    PRIVATE = "private", "Use a public address, or ask the operator to allow this private network."
    CGNAT = "cgnat", "Use a public address, or ask the operator to allow this carrier's network (100.64.0.0/10)."
    BENCHMARKING = "benchmarking", "Use a public address; this network is set aside for benchmarks."
    DOCUMENTATION = "documentation", "Replace the example address by a real one."
    MULTICAST = "multicast", "Use the address of one machine; multicast is always refused."
    BROADCAST = "broadcast", "Use the address of one machine; broadcast is always refused."
    RESERVED = "reserved", "Use a public address; this one is reserved."
    EMBEDDED_IPV4 = (
        "embedded_ipv4",
        "Use the IPv4 address itself, or ask the operator to allow this translation prefix.",
    )


@dataclass(frozen=True, slots=True)
class Denied:
    """A refusal. ``reason`` is the value of a `Denial`."""

    reason: str

    @property
    def remedy(self) -> str:
        return Denial(self.reason).sentence
