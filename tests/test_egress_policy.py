"""What settings make of the egress policy: internal names, and the gateway's own address."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from webhook_gateway.outbound.policy import policy_from
from webhook_gateway.rules.denials import Denial, Denied
from webhook_gateway.rules.targets import Target, judge, parse
from webhook_gateway.settings import Settings


@pytest.fixture(autouse=True)
def _without_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ALLOW_NAMES", "HOST", "PORT", "PUBLIC_URL", "DEVELOPMENT"):
        monkeypatch.delenv(f"WEBHOOK_GATEWAY_{name}", raising=False)


def judged(url: str, **settings: object) -> str | None:
    found = parse(url, policy_from(Settings.model_validate(settings)))
    assert isinstance(found, Target | Denied)
    return found.reason if isinstance(found, Denied) else None


def test_internal_names_are_refused_until_an_operator_allows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged("https://pacs.lab.internal/in") == Denial.LOCAL_NAME
    assert judged("https://partner/in") == Denial.SINGLE_LABEL
    monkeypatch.setenv("WEBHOOK_GATEWAY_ALLOW_NAMES", "Lab.internal., partner")
    assert judged("https://pacs.lab.internal/in") is None
    assert judged("https://partner/in") is None
    assert judged("https://elsewhere.internal/in") == Denial.LOCAL_NAME


def test_an_allowed_name_allows_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_GATEWAY_ALLOW_NAMES", "lab.internal")
    denied = judge("10.0.0.7", 443, policy_from(Settings()))
    assert denied is not None
    assert denied.reason == Denial.PRIVATE


def test_metadata_names_can_not_be_allowed() -> None:
    assert judged("https://metadata.google.internal/", allow_names="internal") == Denial.METADATA


@pytest.mark.parametrize("names", ["*.lab.internal", "lab.internal:8443", "https://lab.internal", "a b"])
def test_what_is_no_name_is_refused_by_the_setting(names: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"allow_names": names})


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "127.1", "0x7f000001"])
def test_no_endpoint_may_be_the_gateway_itself_not_even_in_development(host: str) -> None:
    assert judged(f"http://{host}:9090/v1/events", development=True, port=9090) == Denial.OWN_ORIGIN
    assert judged(f"http://{host}:9091/", development=True, port=9090) is None


def test_the_address_that_it_listens_on_and_its_public_name_are_its_own() -> None:
    assert judged("https://gw.example.org/v1", public_url="https://gw.example.org") == Denial.OWN_ORIGIN
    assert judged("https://gw.example.org:8443/v1", public_url="https://gw.example.org:8443/") == Denial.OWN_ORIGIN
    policy = policy_from(Settings(host="10.1.2.3", port=8443, allow_networks=("10.0.0.0/8",)))
    assert judge("10.1.2.3", 8443, policy) == Denied(Denial.OWN_ORIGIN)
    assert judge("10.1.2.4", 8443, policy) is None


def test_a_nat64_prefix_of_ones_own_is_a_setting_of_one_of_six_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_GATEWAY_NAT64_PREFIXES", "2001:db8:64::/96, fd00:64::/48")
    policy = policy_from(Settings())
    assert judge("2001:db8:64::808:808", 443, policy) is None
    assert judge("2001:db8:64::7f00:1", 443, policy) == Denied(Denial.LOOPBACK)
    monkeypatch.setenv("WEBHOOK_GATEWAY_NAT64_PREFIXES", "2001:db8:64::/95")
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize("url", ["gateway.example.org", "ftp://gateway.example.org", "https://", "https://a:b"])
def test_a_public_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        Settings(public_url=url)
