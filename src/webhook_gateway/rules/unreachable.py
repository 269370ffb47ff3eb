"""Why no answer could be had from a partner: the names behind `Unreachable`, and what each means."""

from __future__ import annotations

from enum import StrEnum


class Trouble(StrEnum):
    NAME_NOT_FOUND = "name_not_found"
    RESOLVER_FAILED = "resolver_failed"
    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_RESET = "connection_reset"
    CONNECTION_CLOSED = "connection_closed"
    NETWORK_UNREACHABLE = "network_unreachable"
    TLS_CERTIFICATE_EXPIRED = "tls_certificate_expired"
    TLS_CERTIFICATE_NAME = "tls_certificate_name"
    TLS_CHAIN_INCOMPLETE = "tls_chain_incomplete"
    TLS_CA_UNKNOWN = "tls_ca_unknown"
    TLS_CERTIFICATE_INVALID = "tls_certificate_invalid"
    TLS_FAILED = "tls_failed"
    PROXY_FAILED = "proxy_failed"
    RESPONSE_HEADERS_TOO_LARGE = "response_headers_too_large"
    PROTOCOL_ERROR = "protocol_error"
    TOKEN_SERVER_UNREACHABLE = "token_server_unreachable"  # noqa: S105 - names of troubles, not tokens
    TOKEN_REFUSED = "token_refused"  # noqa: S105
    TOKEN_UNUSABLE = "token_unusable"  # noqa: S105


MEANINGS: dict[Trouble, str] = {
    Trouble.NAME_NOT_FOUND: "DNS knows no address for the host name.",
    Trouble.RESOLVER_FAILED: "The gateway's DNS resolver could not answer.",
    Trouble.CONNECTION_REFUSED: "Nothing listens on the port.",
    Trouble.CONNECTION_RESET: "The partner, or a firewall before it, broke the connection off.",
    Trouble.CONNECTION_CLOSED: "The partner closed the connection without an answer.",
    Trouble.NETWORK_UNREACHABLE: "There is no route to the partner's network.",
    Trouble.TLS_CERTIFICATE_EXPIRED: "The partner's certificate, or one above it, has expired or isn't valid yet.",
    Trouble.TLS_CERTIFICATE_NAME: "The partner's certificate is for another host.",
    Trouble.TLS_CHAIN_INCOMPLETE: "The partner's server doesn't send all certificates up to a CA that is known here.",
    Trouble.TLS_CA_UNKNOWN: "The partner's certificate is self-signed, or comes from a CA that is not known here.",
    Trouble.TLS_CERTIFICATE_INVALID: "The partner's certificate is not valid for another reason.",
    Trouble.TLS_FAILED: "No common version or cipher of TLS (1.2 or later), or a client certificate was refused.",
    Trouble.PROXY_FAILED: "The gateway's egress proxy refused the connection, or could not make it.",
    Trouble.RESPONSE_HEADERS_TOO_LARGE: "The answer has a line over 8 KiB, or over 128 headers, and is no 2xx.",
    Trouble.PROTOCOL_ERROR: "What the partner answered is not HTTP, or is odd and no 2xx.",
    Trouble.TOKEN_SERVER_UNREACHABLE: "The partner's token server gave no answer; nothing was sent to the partner.",
    Trouble.TOKEN_REFUSED: "The partner's token server refused the client id, the client secret or the scope.",
    Trouble.TOKEN_UNUSABLE: "The partner's token server answered without a bearer token that can be sent.",
}
