"""The Helm chart: closed as Kubernetes' own restricted profile asks for, and as patient as the programs are."""

import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from webhook_gateway.rules.deadlines import API_TREE_KILLED_AFTER, WORKER_TREE_KILLED_AFTER
from webhook_gateway.settings import Settings

CHART = Path(__file__).parents[2] / "deploy" / "chart"
PROXIES = "10.0.0.0/8"

helm = pytest.mark.skipif(shutil.which("helm") is None, reason="needs helm")


def render(*options: str) -> subprocess.CompletedProcess[str]:
    command = ["helm", "template", "gateway", str(CHART), "--kube-version", "1.29", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def pods() -> dict[str, dict[str, Any]]:
    said = render("--set", f"api.trustedProxies={PROXIES}")
    assert said.returncode == 0, said.stderr
    made = [one for one in yaml.safe_load_all(said.stdout) if one and one["kind"] in {"Deployment", "Job"}]
    specs = [one["spec"]["template"]["spec"] for one in made]
    return {spec["containers"][0]["name"]: spec for spec in specs}


@helm
def test_no_pod_runs_as_root_writes_to_its_image_or_gains_privileges() -> None:
    found = pods()
    assert found.keys() == {"api", "worker", "migrate"}
    for spec in found.values():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@helm
def test_its_secrets_come_from_a_secret_and_from_nowhere_else() -> None:
    for spec in pods().values():
        given = {one["name"]: one for one in spec["containers"][0]["env"]}
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        assert given.keys() - values["settings"].keys() == {"DATABASE_URL", "WEBHOOK_GATEWAY_MASTER_KEYS"}
        assert all("secretKeyRef" in given[name]["valueFrom"] for name in given.keys() - values["settings"].keys())
    for name in ("WEBHOOK_GATEWAY_MASTER_KEYS", "DATABASE_URL"):
        assert render("--set", f"settings.{name}=x").returncode != 0


@helm
def test_each_program_is_started_as_its_command_line_takes_it() -> None:
    found = pods()
    assert found["api"]["containers"][0]["args"][0] == "serve"
    assert found["api"]["containers"][0]["args"][-2:] == ["--trusted-proxies", PROXIES]
    assert found["worker"]["containers"][0]["args"] == ["work", "--processes", "2"]
    assert found["migrate"]["containers"][0]["args"] == ["migrate"]


@helm
def test_a_worker_is_asked_at_the_port_of_each_process_whether_it_comes_to_anything() -> None:
    (worker,) = pods()["worker"]["containers"]
    _, _, script = worker["readinessProbe"]["exec"]["command"]
    asked: list[str] = []
    http = ModuleType("urllib.request")
    http.urlopen = lambda url, timeout: asked.append(url)  # type: ignore[attr-defined]
    exec(script.replace("import urllib.request as http; ", ""), {"http": http})
    assert asked == [f"http://127.0.0.1:{port}/readyz" for port in (9101, 9102)]


def test_kubernetes_waits_for_the_programs_to_end() -> None:
    def grace(name: str) -> float:
        text = (CHART / "templates" / name).read_text()
        (found,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", text)
        return float(found)

    (before,) = map(float, re.findall(r"time\.sleep\((\d+)\)", (CHART / "templates" / "api.yaml").read_text()))
    assert grace("api.yaml") == API_TREE_KILLED_AFTER + before
    assert grace("worker.yaml") == WORKER_TREE_KILLED_AFTER


def test_what_it_takes_for_a_secret_is_a_setting() -> None:
    secret = yaml.safe_load((CHART / "values.yaml").read_text())["secret"]
    known = {"DATABASE_URL", *(f"WEBHOOK_GATEWAY_{name.upper()}" for name in Settings.model_fields)}
    assert {secret["databaseUrl"], secret["masterKeys"]} <= known
