"""The tour, as somebody pastes it: the blocks of docs/tour.md, in an interactive shell, against what they start."""

import json
import re
import shutil
import socket
import subprocess
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from .test_up import Up, data  # noqa: F401 - a fixture

TOUR = (Path(__file__).parents[2] / "docs" / "tour.md").read_text()
SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
Start = Callable[..., subprocess.Popen[str]]


def block(name: str) -> str:
    found = re.search(rf"<!-- tour: {name} -->\n```sh\n(.*?)^```$", TOUR, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]


def arguments(name: str) -> list[str]:
    """Of our command in that block."""
    found = re.search(r"^\.venv/bin/webhook-gateway (.+)$", block(name), re.MULTILINE)
    assert found is not None, name
    return found[1].split()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("shell", [["bash", "--norc", "-i"], ["zsh", "-f", "-i"]], ids=["bash", "zsh"])
def test_pasted_as_it_is_the_tour_brings_a_signed_order_to_the_partner(
    shell: list[str],
    start: Start,
    data: Path,  # noqa: F811
) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"there is no {shell[0]}")
    up = Up(start(*arguments("gateway"), "--port", "0"))
    port = str(free_port())
    partner = start(*arguments("partner")[:-1], port, "--json", settings={"WEBHOOK_SECRET": SECRET})
    assert arguments("partner")[-1] == "9000"
    assert partner.stderr is not None
    assert partner.stdout is not None
    assert partner.stderr.readline().startswith("listening on ")
    given = f"KEY={up.printed['key']}\nSECRET={SECRET}\n"

    def paste(text: str) -> str:
        assert "#" not in text, "an interactive zsh takes it for a word"
        text = text.replace("http://127.0.0.1:8080", up.url).replace("127.0.0.1:9000", f"127.0.0.1:{port}")
        ran = subprocess.run(shell, input=given + text, capture_output=True, text=True, timeout=60, check=False)
        return ran.stdout + ran.stderr

    said = paste(block("hospital") + block("further"))
    assert '"duplicate":false' in said, said
    assert '"duplicate":true' in said
    assert '"items":' in said
    first = json.loads(partner.stdout.readline())
    assert first["valid"], first
    assert first["event"]["type"] == "lab_order.placed"
    assert "patient_id" in first["event"]["data"]

    functions, _, order = block("hospital").split("\n\n")
    said = paste(functions + "\n" + order + block("who"))
    assert '"phase":"answered"' in said, said
    shown = [json.loads(partner.stdout.readline()) for _ in range(2)]
    (cut,) = [one for one in shown if not one["test"]]
    assert cut["event"]["data"] == {"order_id": "ord_3", "priority": "stat"}
    assert all(one["valid"] for one in shown)
