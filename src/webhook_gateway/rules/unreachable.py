"""Why no answer could be had from a partner: the names behind `Unreachable`, and what each means."""

from __future__ import annotations

from .explained import Explained


class Trouble(Explained):
    """The sentence is what it means."""

    NAME_NOT_FOUND = "name_not_found", "DNS knows no address for the host name."
    RESOLVER_FAILED = "resolver_failed", "The gateway's DNS resolver could not answer."
    CONNECTION_REFUSED = "connection_refused", "Nothing listens on the port."
    CONNECTION_RESET = "connection_reset", "The partner, or a firewall before it, broke the connection off."
    CONNECTION_CLOSED = "connection_closed", "The partner closed the connection without an answer."
    NETWORK_UNREACHABLE = "network_unreachable", "There is no route to the partner's network."
    TLS_CERTIFICATE_EXPIRED = (
        "tls_certificate_expired",
        "The partner's certificate, or one above it, has expired or isn't valid yet.",
    )
    TLS_CERTIFICATE_NAME = "tls_certificate_name", "The partner's certificate is for another host."
    TLS_CHAIN_INCOMPLETE = (
        "tls_chain_incomplete",
        "The partner's server doesn't send all certificates up to a CA that is known here.",
    )
    TLS_CA_UNKNOWN = (
        "tls_ca_unknown",
        "The partner's certificate is self-signed, or comes from a CA that is not known here.",
    )
    TLS_CERTIFICATE_INVALID = "tls_certificate_invalid", "The partner's certificate is not valid for another reason."
    TLS_FAILED = "tls_failed", "No common version or cipher of TLS (1.2 or later), or a client certificate was refused."
    PROXY_FAILED = "proxy_failed", "The gateway's egress proxy refused the connection, or could not make it."
    RESPONSE_HEADERS_TOO_LARGE = (
        "response_headers_too_large",
        "The answer has a line over 8 KiB, or over 128 headers, and is no 2xx.",
    )
    PROTOCOL_ERROR = "protocol_error", "What the partner answered is not HTTP, or is odd and no 2xx."
    TOKEN_SERVER_UNREACHABLE = (
        "token_server_unreachable",
        "The partner's token server gave no answer; nothing was sent to the partner.",
    )
    TOKEN_REFUSED = "token_refused", "The partner's token server refused the client id, the client secret or the scope."
    TOKEN_UNUSABLE = "token_unusable", "The partner's token server answered without a bearer token that can be sent."
