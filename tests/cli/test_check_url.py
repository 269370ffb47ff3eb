"""`check-url` answers by its exit code, and has a name for every refusal."""

import json
import subprocess
from collections.abc import Callable

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://partner.example.com/", "https_required"),
        ("https://127.0.0.1/", "loopback"),
        ("https://[::ffff:10.0.0.1]/", "private"),
        ("https://169.254.169.254/latest/meta-data", "metadata"),
        ("https://user:password@partner.example.com/", "userinfo"),
        ("https://partner.example.com:22/", "forbidden_port"),
        ("file:///etc/passwd", "forbidden_scheme"),
        ("", "malformed_url"),
    ],
)
def test_a_forbidden_url_is_denied_by_name(cli: Cli, url: str, reason: str) -> None:
    found = cli("check-url", "--no-resolve", url)
    assert (found.returncode, found.stdout) == (1, f"denied: {reason}\n")
    assert found.stderr, "a refusal comes with its remedy"


def test_an_allowed_url_is_allowed(cli: Cli) -> None:
    found = cli("check-url", "--no-resolve", "https://partner.example.com/webhooks")
    assert (found.returncode, found.stdout) == (0, "allowed\n")


def test_a_name_is_judged_by_what_it_resolves_to(cli: Cli) -> None:
    """A public name in a partner's own DNS may point anywhere; `localhost` does so on every machine."""
    found = cli("check-url", "--json", "https://localhost/", WEBHOOK_GATEWAY_ALLOW_NETWORKS="10.20.0.0/16")
    assert found.returncode == 1
    assert json.loads(found.stdout)["allowed"] is False


def test_what_the_settings_open_is_open(cli: Cli) -> None:
    assert cli("check-url", "http://127.0.0.1:9000/", WEBHOOK_GATEWAY_DEVELOPMENT="true").returncode == 0
    private = ("check-url", "--no-resolve", "https://10.20.3.4:8443/")
    opened = {"WEBHOOK_GATEWAY_ALLOW_NETWORKS": "10.20.0.0/16", "WEBHOOK_GATEWAY_ALLOW_IP_LITERALS": "true"}
    assert cli(*private).returncode == 1
    assert cli(*private, **opened).returncode == 0
