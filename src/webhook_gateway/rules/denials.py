"""Every refusal of a URL or an address by name, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

URL_LIMIT = 2048
LABEL_LIMIT = 63
HOST_LIMIT = 253
"""Characters; those of a host name and its labels are RFC 1035's (section 2.3.4), without the trailing dot."""


class Denial(StrEnum):
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
