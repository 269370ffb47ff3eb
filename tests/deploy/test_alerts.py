"""The alert rules, by Prometheus' own tool: each fires when it should, and none while all is well."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
TESTS = Path(__file__).with_name("alerts_test.yml")
RULES = CHECKOUT / "docs" / "alerts.yml"

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=TESTS.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid() -> None:
    promtool("check", "rules", str(RULES))


def test_each_alert_fires_when_it_should_and_none_while_all_is_well() -> None:
    promtool("test", "rules", TESTS.name)


def test_each_alert_is_tried() -> None:
    rules = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    cases = yaml.safe_load(TESTS.read_text())["tests"]
    fired = {one["alertname"] for case in cases for one in case.get("alert_rule_test", ()) if one["exp_alerts"]}
    assert fired == rules
