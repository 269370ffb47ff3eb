"""Every setting, from the environment. Safe by default: whatever loosens a guard is named, and `check` says so."""

from __future__ import annotations

import re
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AliasChoices, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from webhook_gateway import cores
from webhook_gateway.cores import AUTO, Processes
from webhook_gateway.rules.deadlines import LEASE_MARGIN
from webhook_gateway.rules.scopes import Role, Scope

_ADDRESS = re.compile(r"[^\s@,<>]+@[^\s@,<>]+")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


class Settings(BaseSettings):
    """Read once from ``WEBHOOK_GATEWAY_*`` (and ``DATABASE_URL``). Sizes are bytes, times are seconds."""

    model_config = SettingsConfigDict(env_prefix="WEBHOOK_GATEWAY_", extra="ignore", frozen=True, populate_by_name=True)

    database_url: str | None = Field(
        None, validation_alias=AliasChoices("database_url", "DATABASE_URL", "WEBHOOK_GATEWAY_DATABASE_URL")
    )
    """PostgreSQL 15 or newer. Without it, `up` and `demo` start the embedded one."""
    data: Path | None = None
    """Where the embedded PostgreSQL and the development key file live."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    public_url: str | None = None
    """Where others reach the API, as ``https://gateway.example.org``. No endpoint may be there."""
    api_processes: Processes = AUTO
    worker_processes: Processes = AUTO
    """``auto``: one for each core that we may use; `up` shares the cores between API and workers."""
    body_limit: int = Field(1_048_576, ge=1_024, le=67_108_864)
    api_rate: float = Field(2_000.0, ge=0)
    """Requests a second that one key may make to one API process; 0 for no limit."""
    api_connections: int = Field(2_000, ge=16, le=100_000)
    """Connections that one API process takes at most; fewer where it may open few descriptors (RLIMIT_NOFILE)."""
    api_connections_by_address: int = Field(500, ge=1, le=100_000)
    """Of them from one address; of all, half at most. Trusted proxies are not counted."""
    header_limit: int = Field(32_768, ge=4_096, le=1_048_576)
    """A request's line and headers together."""
    header_timeout: float = Field(10.0, ge=0.1, le=600)
    """Until they have come."""
    body_rate: int = Field(1_024, ge=1)
    """Bytes a second that a body has to come with, beyond ``header_timeout``."""
    idle_timeout: float = Field(30.0, ge=0.1, le=3_600)
    """Until a connection that nothing happens on is closed, or one whose client takes nothing of an answer."""
    api_event_rate: float = Field(20_000.0, ge=0)
    """Events a second that one key may post to one API process in batches; 0 for no limit."""
    oidc_issuer: str | None = None
    """The hospital's identity provider: the claim ``iss`` of its tokens (JWTs)."""
    oidc_audience: str | None = None
    """What tokens for the API, which it takes beside its own keys, have as ``aud``."""
    oidc_jwks_url: str | None = None
    """Where the provider's keys are: https."""
    oidc_role_claim: str = "scope"
    """The claim that ``oidc_roles`` maps, as ``scope``, ``groups``, or ``realm_access.roles``."""
    oidc_roles: Annotated[dict[str, str] | None, NoDecode] = None
    """Its values as roles or scopes: ``hms-operators=operator,hms-auditors=auditor``. Others give nothing."""
    oidc_tenant_claim: str | None = None
    """The claim that names the tenant. Without it, tokens are for the default tenant."""
    oidc_client_id: str | None = None
    """As whom the provider knows the console: people sign in there with their accounts (OpenID Connect)."""
    oidc_client_secret_file: Path | None = None
    oidc_sign_in_claim: str = "groups"
    """The claim of their ID tokens that ``oidc_roles`` maps."""
    oidc_sign_in_scope: str = "profile"
    """What is asked of the provider beside ``openid``, as ``profile groups``."""
    partner_endpoints: int = Field(50, ge=0)
    """Endpoints that a subscriber may have for one of its own keys to make another."""
    partner_header_bytes: int = Field(4_096, ge=0)
    """Bytes of all headers that a partner's key may give one endpoint."""
    partner_tests_a_day: int = Field(1_000, ge=0)
    partner_replays_a_day: int = Field(100_000, ge=0)
    """Deliveries that a subscriber's own keys may have sent again in a day, one by one or by jobs."""
    partner_open_replays: int = Field(2, ge=0)
    """Jobs of one subscriber that may be under way for one of its own keys to make another."""
    access_log: bool = True
    """A line for each request to the API, at the level ``info``."""
    public_docs: bool = False
    """Serve the OpenAPI document and its pages without a key."""
    time_zone: str = "UTC"
    """The hospital's, as ``Europe/Berlin``: the console offers times in it."""

    development: bool = False
    """Loosens egress for a laptop: http, loopback and any port. Never in production."""
    allow_http: bool = False
    egress_ports: Annotated[frozenset[int], NoDecode] = frozenset({443, 8443})
    allow_ip_literals: bool = False
    allow_networks: Annotated[tuple[str, ...], NoDecode] = ()
    """Private networks that an operator allows, as ``10.20.0.0/16`` or ``10.20.0.0/16:8443``."""
    nat64_prefixes: Annotated[tuple[IPv6Network, ...], NoDecode] = ()
    """Translation prefixes of one's own network (RFC 6052), as ``2001:db8:64::/96``: what is behind them is judged."""
    allow_names: Annotated[frozenset[str], NoDecode] = frozenset()
    """Internal names that an operator allows with everything below them, as ``lab.internal``, or ``partner``."""
    resolver: Literal["dns", "system"] = "dns"
    """Who resolves partners' names: DNS (and ``/etc/hosts``), or whatever the operating system is set up to ask."""
    egress_proxy: str | None = None
    """The URL of a CONNECT proxy that all requests go through. It must itself refuse private addresses."""

    master_keys: str | None = Field(None, repr=False)
    """``name:base64`` of 32 bytes each, separated by commas; the first one wraps new data keys."""
    master_key_file: Path | None = None
    """The same text in a file that only its owner may read."""

    concurrency: int = Field(256, ge=1, le=10_000)
    """Requests in flight in one worker process; three times as many where requests hang."""
    tenant_slots: int = Field(0, ge=0)
    """Requests in flight for one tenant in one worker process; 0 for as many as there are."""
    lease_margin: float = Field(LEASE_MARGIN, ge=1, le=3_600)
    """Beyond an endpoint's deadline, before a delivery whose worker went silent may be claimed by another one."""
    keep_responses: int = Field(0, ge=0, le=1_024)
    """Bytes of a partner's answer to keep, encrypted. They may hold patients' data: 0 keeps none."""
    retain_bodies_days: int = Field(30, ge=1)
    retain_open_days: int = Field(90, ge=1)
    """After which a delivery that never came to an end is dead. Its body stays until then."""
    retain_metadata_days: int = Field(2_190, ge=1)
    retain_idempotency_hours: int = Field(72, ge=1)
    patient_index: bool = True
    """Whether events can be found by patient, subject and ordering key, by keyed hashes: those accepted from now on."""
    otlp_endpoint: str | None = None
    """The collector that spans go to, as ``http://collector:4318``. Needs the extra ``otlp``."""
    otlp_ratio: float = Field(1.0, ge=0, le=1)
    """Of all events, how many are traced."""
    metrics_endpoints: int = Field(50, ge=0, le=10_000)
    """Endpoints that have metrics of their own: those with most to do. The rest are ``other``."""
    worker_metrics_port: int = Field(0, ge=0, le=65_535)
    """Where a worker process shows its own metrics, on this host's loopback only; a second process takes the next
    free port. 0: nowhere."""
    smtp_host: str | None = None
    """The mail server by which operators are told of troubles. Without it nobody is."""
    smtp_port: int = Field(587, ge=1, le=65_535)
    smtp_tls: Literal["starttls", "implicit", "none"] = "starttls"
    """``implicit`` from the first byte, mostly at port 465."""
    smtp_user: str | None = None
    smtp_password_file: Path | None = None
    smtp_from: str | None = None
    smtp_to: Annotated[tuple[str, ...], NoDecode] = ()
    log_level: str = "info"

    @field_validator("egress_ports", "allow_networks", "nat64_prefixes", "allow_names", "smtp_to", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("api_processes", "worker_processes", mode="before")
    @classmethod
    def _read_processes(cls, value: object) -> Processes:
        return cores.read(value)

    @field_validator("public_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError("write it as https://gateway.example.org")
            _ = parts.port  # raises ValueError for one that is none
        return value

    @field_validator("time_zone")
    @classmethod
    def _check_zone(cls, value: str) -> str:
        try:
            return ZoneInfo(value).key
        except (ZoneInfoNotFoundError, OSError):
            raise ValueError("write it as Europe/Berlin") from None

    @field_validator("allow_names")
    @classmethod
    def _check_names(cls, value: frozenset[str]) -> frozenset[str]:
        names = frozenset(name.lower().strip(".") for name in value)
        if not all(_NAME.fullmatch(name) for name in names):
            raise ValueError("write names as lab.internal, separated by commas, without * and ports")
        return names

    @field_validator("oidc_roles", mode="before")
    @classmethod
    def _split_roles(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.rpartition("=") for part in value.split(",") if part.strip()]
        return {given.strip(): role.strip() for given, _, role in pairs}

    @field_validator("oidc_roles")
    @classmethod
    def _check_roles(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        # A partner's key is bound to one subscriber, which a token can't say.
        known = {*Role, *Scope} - {Role.PARTNER}
        if value is not None and (not all(value) or not known.issuperset(value.values())):
            raise ValueError(f"write it as group=role, with the roles and scopes {', '.join(sorted(known))}")
        return value

    @model_validator(mode="after")
    def _check_oidc(self) -> Settings:
        tokens, people = (self.oidc_audience, self.oidc_jwks_url), (self.oidc_client_id, self.oidc_client_secret_file)
        wanted = [given for given in (tokens, people) if any(given)]
        if (wanted or self.oidc_issuer) and not (wanted and all((*sum(wanted, ()), self.oidc_issuer, self.oidc_roles))):
            ways = "OIDC_AUDIENCE and OIDC_JWKS_URL, or OIDC_CLIENT_ID and OIDC_CLIENT_SECRET_FILE"
            raise ValueError(f"OIDC_ISSUER, OIDC_ROLES and {ways} (or all four) are needed together")
        if self.oidc_client_id and self.oidc_client_id == self.oidc_audience:
            raise ValueError("OIDC_CLIENT_ID has to differ from OIDC_AUDIENCE: who signs in gets no token for the API")
        urls = {"OIDC_JWKS_URL": self.oidc_jwks_url}
        if self.oidc_client_id:
            urls |= {"OIDC_ISSUER": self.oidc_issuer, "PUBLIC_URL": self.public_url or "http://"}
        for name, url in urls.items():
            if url is not None and not self.is_trusted(url):
                raise ValueError(f"{name} has to be https: whoever can change the answer can be anybody")
        return self

    def is_trusted(self, url: str) -> bool:
        """Whether nobody on the way there can read or change anything; in development, whoever is on this machine."""
        return url.startswith(("https://", "http://") if self.development else "https://")

    @model_validator(mode="after")
    def _check_smtp(self) -> Settings:
        addresses = [*self.smtp_to, self.smtp_from or ""]
        if self.smtp_host and not (self.smtp_to and all(_ADDRESS.fullmatch(address) for address in addresses)):
            raise ValueError("SMTP_HOST needs SMTP_FROM and SMTP_TO, each address as operators@hospital.example")
        return self

    @field_validator("nat64_prefixes")
    @classmethod
    def _check_prefixes(cls, value: tuple[IPv6Network, ...]) -> tuple[IPv6Network, ...]:
        if any(prefix.prefixlen not in {32, 40, 48, 56, 64, 96} for prefix in value):
            raise ValueError("a prefix has 32, 40, 48, 56, 64 or 96 bits, as in 2001:db8:64::/96")
        return value

    @field_validator("allow_networks")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            network_and_port(text)
        return value


def network_and_port(text: str) -> tuple[IPv4Network | IPv6Network, int | None]:
    """Reads ``10.20.0.0/16``, ``10.20.0.0/16:8443`` or ``[fd12::/16]:8443``.

    Raises:
        ValueError: no network, or no port, is written there.
    """
    if text.startswith("["):
        network, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        network, _, port = text.partition(":")
    else:
        network, port = text, ""
    return ip_network(network), int(port) if port else None


@cache
def settings() -> Settings:
    """The process's settings, read once.

    Raises:
        pydantic.ValidationError: a value is out of its range; the CLI prints it by name.
    """
    return Settings()
