"""docs/security.md keeps its word: what it names as proof exists, and what it names as a setting is one."""

import ast
import re
from functools import cache
from pathlib import Path

from webhook_gateway.settings import Settings

CHECKOUT = Path(__file__).parents[1]
PAGE = (CHECKOUT / "docs" / "security.md").read_text()
PROOF = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@cache
def names_in(path: str) -> set[str]:
    tree = ast.parse((CHECKOUT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_the_page_names_exists() -> None:
    named = PROOF.findall(PAGE)
    assert len(named) > 40
    assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []


def test_every_line_of_its_tables_of_attacks_and_duties_names_a_test() -> None:
    sections = PAGE.split("\n## ")
    proven = [section for section in sections if section.startswith(("Attacks", "HIPAA", "GDPR"))]
    assert len(proven) == 3
    for section in proven:
        for line in section.splitlines():
            is_heading = re.match(r"\| (attack|duty|---) ", line) is not None
            assert not line.startswith("|") or is_heading or PROOF.search(line), line


def test_every_setting_that_the_page_names_is_one() -> None:
    named = set(re.findall(r"WEBHOOK_GATEWAY_(\w+)", PAGE))
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_every_setting_that_loosens_something_is_on_the_page() -> None:
    loosening = {"development", "public_docs", "keep_responses", "api_rate", "api_event_rate", "oidc_roles"}
    loosening |= {"nat64_prefixes", "smtp_tls"} | {
        name for name in Settings.model_fields if name.startswith(("allow_", "egress_"))
    }
    section = PAGE.partition("## What an operator may loosen")[2].partition("\n## ")[0]
    assert loosening == {name.lower() for name in re.findall(r"`WEBHOOK_GATEWAY_(\w+)`", section)}
