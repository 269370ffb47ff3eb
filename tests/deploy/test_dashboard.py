"""The dashboard beside a running gateway: Prometheus itself scrapes it, and no panel is empty."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.command_line import bare_environment
from tests.support.partner import listening_socket
from webhook_gateway.demo.screen import ORDER

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "webhook-gateway.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
PATIENCE = 180.0


@pytest.fixture
def demo(place: Path) -> Iterator[tuple[str, str, int]]:
    """Its address, an administrator's key, and its worker's metrics' port, once its day is over and it stays up."""
    command = [sys.executable, "-m", "webhook_gateway.cli", "demo", "--patients", "2"]
    environment = bare_environment(TMPDIR=str(place))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            said: list[str] = []
            for line in running.stdout:
                said.append(line)
                if line.startswith("it stays up until"):
                    break
            (address,), (key,) = (re.findall(rf"^{what} +(\S+)", "".join(said), re.M) for what in ("API", "key"))
            yield address, key, metrics_port(place)
        finally:
            running.terminate()
            running.communicate()


def metrics_port(place: Path) -> int:
    """As the worker logged it: somebody else may have had the port after the API's."""
    (log,) = place.glob("webhook-gateway-demo-*/worker-1.log")
    (port,) = re.findall(r'"port": ?(\d+).*"metrics_shown"', log.read_text())
    return int(port)


@pytest.fixture
def prometheus(demo: tuple[str, str, int], tmp_path: Path) -> Iterator[httpx.Client]:
    """One that scrapes the demo as the documentation says, with a key of its own that ends one day."""
    address, key, workers = demo
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as admin:
        ends = (datetime.now(UTC) + timedelta(days=365)).isoformat()
        new = {"name": "prometheus", "scopes": ["metrics:read"], "expires_at": ends}
        scrapes = admin.post("/v1/keys", json=new).raise_for_status().json()["key"]
    jobs = [
        {
            "job_name": "webhook-gateway",
            "authorization": {"credentials": scrapes},
            "static_configs": [{"targets": [address.removeprefix("http://")]}],
        },
        {
            "job_name": "webhook-gateway-workers",
            "static_configs": [{"targets": [f"127.0.0.1:{workers}"]}],
        },
    ]
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    with listening_socket() as free:
        port = free.getsockname()[1]
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as running,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        try:
            yield client
        finally:
            running.terminate()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (Debian: prometheus)")
def test_beside_the_running_demo_no_panel_is_empty(demo: tuple[str, str, int], prometheus: httpx.Client) -> None:
    address, key, _ = demo
    empty, deadline = dict.fromkeys(QUERIES, "was never asked"), time.monotonic() + PATIENCE
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as admin:
        while empty and time.monotonic() < deadline:
            admin.post(
                "/v1/events", json=json.loads(ORDER)
            ).raise_for_status()  # what is asked by the second has to move
            empty = {query: why for query in empty if (why := what_is_wrong(prometheus, query[1]))}
    assert not empty


def what_is_wrong(prometheus: httpx.Client, query: str) -> str:
    """Nothing where some series has a number."""
    try:
        asked = query.replace("$__rate_interval", "20s")
        answered = prometheus.get("/api/v1/query", params={"query": asked})
    except httpx.TransportError:
        return "Prometheus is not up yet"
    if answered.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # in words, until it has read its own data
        return "Prometheus is not ready yet"
    answer = answered.json()
    if answer["status"] != "success":
        return str(answer["error"])
    values = [float(one["value"][1]) for one in answer["data"]["result"]]
    return "" if any(map(math.isfinite, values)) else f"no number among {values}"


def test_every_panel_asks_the_chosen_source_and_none_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    sources = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert sources == {"${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
