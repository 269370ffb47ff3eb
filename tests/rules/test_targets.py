"""What the gateway may connect to: every refusal has a name, and no spelling of an address gets past it."""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from tests.rules.registries import addresses_v4, oracle_says_public
from webhook_gateway.rules.denials import Denial, Denied
from webhook_gateway.rules.hosts import read_name
from webhook_gateway.rules.targets import Policy, Target, development, judge, never_opens, parse

CASES = [
    line.encode("ascii", "backslashreplace").decode("unicode_escape")
    for line in (Path(__file__).parents[1] / "data" / "ssrf-cases.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
LOOSE = Policy(allow_http=True, ports=frozenset({80, 443, 8080, 1900}), allow_ip_literals=True)


@pytest.mark.parametrize("url", CASES)
@pytest.mark.parametrize("policy", [Policy(), LOOSE], ids=["default", "loose"])
def test_every_hostile_url_is_refused_by_name(url: str, policy: Policy) -> None:
    refused = parse(url, policy)
    assert isinstance(refused, Denied)
    assert refused.remedy == Denial(refused.reason).sentence


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://127.0.0.1/", "loopback"),
        ("https://0177.0.0.1/", "loopback"),
        ("https://0x7f000001/", "loopback"),
        ("https://1.1.1.1/", "ip_literal"),
        ("https://[2606:4700::1111]/", "ip_literal"),
        ("https://\uff11\uff12\uff17.1/", "loopback"),
        ("https://127\uff0e0\uff610\u30021/", "loopback"),
        ("https://4294967296/", "malformed_host"),
        ("https://1.2.3.4.5/", "malformed_host"),
        ("https://09.1.1.1/", "malformed_host"),
        ("https://a.1/", "malformed_host"),
        ("https://[::ffff:8.8.8.8]/", "embedded_ipv4"),
        ("https://[2001:0:1::f7f7:f7f7]/", "embedded_ipv4"),
        ("https://[2607:f8b0::5efe:10.0.0.1]/", "private"),
        ("https://[fe80::1%25eth0]/", "link_local"),
        ("https://[2606:4700::1%25eth0]/", "malformed_host"),
        ("https://[::1/", "malformed_host"),
        ("https://localhost/", "loopback"),
        ("https://x.localhost/", "loopback"),
        ("https://partner/", "single_label"),
        ("https://db.internal/", "local_name"),
        ("https://a.home.arpa./", "local_name"),
        ("https://metadata.goog/", "metadata"),
        ("https://example.com:22/", "forbidden_port"),
        ("https://example.com:65536/", "malformed_port"),
        ("https://example.com:99999999999999999999/", "malformed_port"),
        ("https://example.com:4\u0664/", "malformed_host"),
        ("https://example.com:0/", "malformed_port"),
        ("https://example.com/#", "fragment"),
        ("https://a@example.com/", "userinfo"),
        ("https://@example.com/", "userinfo"),
        ("https://example.com\\@127.0.0.1/", "forbidden_character"),
        ("https://example.com/ x", "forbidden_character"),
        ("https://exa\tmple.com/", "forbidden_character"),
        ("https://example.com\x00.evil.com/", "forbidden_character"),
        ("https://example.com/\ud800", "forbidden_character"),
        ("https://exam\u200bple.com/", "forbidden_character"),
        ("https://exam\u00adple.com/", "forbidden_character"),
        ("https://fa\u00df.de/", "ambiguous_host"),
        ("https://example\u2100.com/", "malformed_host"),
        ("https://%31%32%37.0.0.1/", "malformed_host"),
        ("https://a..b.com/", "malformed_host"),
        ("https://-a.com/", "malformed_host"),
        ("https://example.com../", "malformed_host"),
        ("https:///path", "malformed_host"),
        ("https:example.com", "malformed_url"),
        ("", "malformed_url"),
        ("http://example.com/", "https_required"),
        ("ftp://example.com/", "forbidden_scheme"),
        (f"https://{'a' * 64}.com/", "label_too_long"),
        (f"https://{chr(228) * 64}.com/", "label_too_long"),
        (f"https://{'a.' * 130}com/", "host_too_long"),
        ("https://example.com/" + "a" * 2048, "url_too_long"),
    ],
)
def test_a_refusal_names_its_reason(url: str, reason: str) -> None:
    assert parse(url, Policy()) == Denied(reason)


@pytest.mark.parametrize(
    ("url", "host", "port", "normalised"),
    [
        ("https://example.com", "example.com", 443, "https://example.com/"),
        ("HTTPS://Example.COM.:443/A", "example.com", 443, "https://example.com/A"),
        ("https://example.com:8443?x=1", "example.com", 8443, "https://example.com:8443/?x=1"),
        ("https://example.com:/x", "example.com", 443, "https://example.com/x"),
        ("https://b\u00fccher.de/\u00e4?q=%zz", "xn--bcher-kva.de", 443, "https://xn--bcher-kva.de/%C3%A4?q=%25zz"),
        ("https://\uff45xample.com/", "example.com", 443, "https://example.com/"),
        ("https://example.com/a/../b//c", "example.com", 443, "https://example.com/a/../b//c"),
        ("https://example.com/%2e%2e/%41", "example.com", 443, "https://example.com/%2e%2e/%41"),
    ],
)
def test_a_public_url_passes_and_is_normalised(url: str, host: str, port: int, normalised: str) -> None:
    assert parse(url, Policy()) == Target("https", host, port, normalised)


ANY_PORT = Policy(ports=None)


@pytest.mark.parametrize(
    ("longest", "too_long", "reason"),
    [
        ("https://example.com/" + "a" * 2028, "https://example.com/" + "a" * 2029, "url_too_long"),
        (f"https://{'a' * 63}.com/", f"https://{'a' * 64}.com/", "label_too_long"),
        (f"https://{chr(252) * 10}.{'a' * 63}.com/", f"https://{chr(252) * 10}.{'a' * 64}.com/", "label_too_long"),
        (f"https://{chr(228) * 57}.com/", f"https://{chr(228) * 58}.com/", "label_too_long"),
        (f"https://{'a.' * 125}com/", f"https://{'a.' * 125}coma/", "host_too_long"),
        (f"https://{'a.' * 125}com./", f"https://{'a.' * 125}coma./", "host_too_long"),
        ("https://example.com:65535/", "https://example.com:65536/", "malformed_port"),
        ("https://example.com:1/", "https://example.com:0/", "malformed_port"),
        ("https://example.com:00443/", "https://example.com:000443/", "malformed_port"),
    ],
)
def test_a_url_passes_at_its_limits_and_not_one_beyond(longest: str, too_long: str, reason: str) -> None:
    assert isinstance(parse(longest, ANY_PORT), Target)
    assert parse(too_long, ANY_PORT) == Denied(reason)


def test_a_long_label_that_is_malformed_is_not_said_to_be_too_long() -> None:
    assert parse(f"https://{chr(228) * 40}{chr(0x2100)}.com/", Policy()) == Denied("malformed_host")


@pytest.mark.parametrize("url", ["http://example.com/", "http://example.com:80/"])
def test_plain_http_is_port_80_where_it_is_allowed(url: str) -> None:
    assert parse(url, development()) == Target("http", "example.com", 80, "http://example.com/")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9001/x", "http://localhost:9001/x", "http://[::1]:9001/x", "https://example.com/"]
)
def test_development_may_call_its_own_machine(url: str) -> None:
    target = parse(url, development())
    assert isinstance(target, Target)
    assert target.url == url


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.1", "::ffff:127.0.0.1", "fe80::1", "0.0.0.0", "::"])
def test_development_opens_nothing_but_loopback(address: str) -> None:
    assert judge(address, 9001, development()) is not None


def test_an_operator_can_allow_a_private_network_on_one_port() -> None:
    policy = Policy(allowed_networks=((ip_network("10.1.0.0/16"), 9443),))
    assert isinstance(parse("https://lis.example.com:9443/", policy), Target)
    assert judge("10.1.2.3", 9443, policy) is None
    assert judge("10.1.2.3", 443, policy) == Denied("private")
    assert judge("10.2.0.1", 9443, policy) == Denied("private")
    assert judge("1.1.1.1", 9443, policy) == Denied("forbidden_port")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("169.254.169.254", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("169.254.1.1", "link_local"),
        ("fe80::1", "link_local"),
        ("0.0.0.0", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "broadcast"),
    ],
)
def test_no_operator_can_allow_metadata_loopback_or_link_local(address: str, reason: str) -> None:
    everything = Policy(ports=None, allowed_networks=((ip_network("0.0.0.0/0"), None), (ip_network("::/0"), None)))
    assert judge(address, 443, everything) == Denied(reason)


def test_an_operator_can_allow_nat64_but_not_what_hides_behind_it() -> None:
    policy = Policy(allowed_networks=((ip_network("64:ff9b::/96"), None),))
    assert judge("64:ff9b::808:808", 443, policy) is None
    assert judge("64:ff9b::a00:1", 443, policy) == Denied("private")
    assert judge("64:ff9b::808:808", 443, Policy()) == Denied("embedded_ipv4")


def test_an_operator_can_allow_an_internal_name_but_not_a_metadata_name() -> None:
    policy = Policy(allowed_names=frozenset({"hospital.local", "partner", "internal"}))
    assert isinstance(parse("https://lis.hospital.local/", policy), Target)
    assert isinstance(parse("https://partner/", policy), Target)
    assert parse("https://evilhospital.local/", policy) == Denied("local_name")
    assert parse("https://metadata.google.internal/", policy) == Denied("metadata")


@pytest.mark.parametrize(
    ("prefix", "inside"),  # 192.0.2.33 by RFC 6052, section 2.4, and 10.0.0.1 in the same places
    [
        ("2001:db8::/32", ("2001:db8:c000:221::", "2001:db8:a00:1::")),
        ("2001:db8:100::/40", ("2001:db8:1c0:2:21::", "2001:db8:10a:0:1::")),
        ("2001:db8:122::/48", ("2001:db8:122:c000:2:2100::", "2001:db8:122:a00:0:100::")),
        ("2001:db8:122:300::/56", ("2001:db8:122:3c0:0:221::", "2001:db8:122:30a:0:1::")),
        ("2001:db8:122:344::/64", ("2001:db8:122:344:c0:2:2100::", "2001:db8:122:344:a:0:100::")),
        ("2001:db8:122:344::/96", ("2001:db8:122:344::192.0.2.33", "2001:db8:122:344::10.0.0.1")),
    ],
)
def test_an_address_of_a_nat64_prefix_of_ones_own_is_judged_as_the_one_behind_it(
    prefix: str, inside: tuple[str, str]
) -> None:
    policy = Policy(nat64=(IPv6Network(prefix),))
    assert [judge(address, 443, policy) for address in inside] == [Denied("documentation"), Denied("private")]
    opened = Policy(nat64=policy.nat64, allowed_networks=((ip_network("192.0.2.0/24"), None),))
    assert judge(inside[0], 443, opened) is None


@pytest.mark.parametrize(
    ("network", "effect"),
    [
        *(("127.0.0.0/8", False), ("127.1.0.0/16", False), ("169.254.0.0/16", False), ("::1/128", False)),
        *(("fe80::/10", False), ("224.0.0.0/4", False), ("0.0.0.0/0", True), ("10.0.0.0/8", True)),
        *(("126.0.0.0/7", True), ("fd00::/8", True), ("8.8.8.0/24", True)),
    ],
)
def test_a_network_is_known_to_have_no_effect_where_nothing_in_it_is_ever_connected_to(
    network: str, effect: bool
) -> None:
    assert never_opens(ip_network(network)) is not effect


def test_the_gateway_does_not_deliver_to_itself() -> None:
    policy = Policy(own_origins=frozenset({("hooks.example.com", 443), ("198.41.0.4", 443)}))
    assert parse("https://HOOKS.example.com./v1/events", policy) == Denied("own_origin")
    assert judge("198.41.0.4", 443, policy) == Denied("own_origin")
    assert judge("198.41.0.4", 8443, policy) is None


def test_every_denial_has_a_remedy_of_one_sentence() -> None:
    assert all(denial.sentence.endswith(".") and "\n" not in denial.sentence for denial in Denial)


@pytest.mark.parametrize(
    "written",
    [
        *("0", "4294967295", "4294967296", "1.16777215", "1.16777216", "1.2.65535", "1.2.65536"),
        *("1.2.3.0", "1.2.3.255", "1.2.3.256", "255.255.255.255", "256.1.1.1", "1.256.1.1", "1.1.256.1"),
        *(
            "255.1",
            "256.1",
            "255.255.1",
            "1.256.1",
            "1.2.3.4.0",
            "1.2.3.4.5",
            "0.0.0.0.0",
            "017.0xf.15.8",
            "08",
            "0x100.1",
        ),
    ],
)
def test_an_ipv4_address_is_read_as_the_operating_system_reads_it(written: str) -> None:
    read = read_name(written)
    try:
        assert read == IPv4Address(socket.inet_aton(written))
    except OSError:
        assert read == Denied("malformed_host")


@st.composite
def spellings(draw: st.DrawFn) -> tuple[IPv4Address, str]:
    """An IPv4 address, and one of the many ways to write it."""
    address = draw(addresses_v4)
    assert isinstance(address, IPv4Address)
    parts = draw(st.integers(1, 4))
    number = int(address)
    numbers = [number >> (24 - 8 * place) & 0xFF for place in range(parts - 1)]
    numbers.append(number & (256 ** (5 - parts) - 1))
    forms = st.sampled_from(["{}", "0x{:x}", "0X{:08X}", "0{:o}"])
    written = draw(st.sampled_from([".", "\u3002", "\uff0e", "\uff61"])).join(
        draw(forms).format(part) for part in numbers
    )
    digits = draw(
        st.sampled_from(
            [
                "0123456789",
                "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19",
                "\u24ea\u2460\u2461\u2462\u2463\u2464\u2465\u2466\u2467\u2468",
            ]
        )
    )
    return address, written.translate(str.maketrans("0123456789", digits)) + draw(st.sampled_from(["", "."]))


@given(spellings())
@example((IPv4Address("127.0.0.1"), "2130706433"))
def test_no_spelling_of_an_address_gets_past_the_rules(spelled: tuple[IPv4Address, str]) -> None:
    address, written = spelled
    literals = Policy(allow_ip_literals=True)
    read = parse(f"https://{written}/", literals)
    assert isinstance(parse(f"https://{written}/", Policy()), Denied)
    assert isinstance(read, Target) == oracle_says_public(address)
    if isinstance(read, Target):
        assert read.host == str(address)


hosts = st.text(st.sampled_from("aZ09.-_:@[]%/\\#?\u3002\uff0e\u2460\u00e4\u00df\u200b\x00\t xn"), max_size=30)


@given(st.one_of(st.text(max_size=60), hosts.map("https://{}/".format), hosts.map("https://example.com{}".format)))
def test_any_text_is_read_without_raising_and_as_other_parsers_read_it(url: str) -> None:
    target = parse(url, Policy())
    if isinstance(target, Target):
        assert target.url.isascii()
        assert parse(target.url, Policy()) == target
        split, yarl, http = urlsplit(target.url), URL(target.url, encoded=True), httpx.URL(target.url)
        assert target.host == split.hostname == yarl.raw_host == http.raw_host.decode()
        assert target.port == (split.port or 443) == yarl.port == (http.port or 443)


@given(st.text(max_size=40), st.integers(-1, 70_000))
def test_any_text_is_judged_as_an_address_without_raising(address: str, port: int) -> None:
    judged = judge(address, port, Policy())
    try:
        ipaddress.ip_address(address)
    except ValueError:
        assert judged == Denied("not_an_address")
