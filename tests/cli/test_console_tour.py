"""The console's tour, as somebody follows it: docs/console-tour.md, in a real browser, against what it starts."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.support.chromium import CHROMIUM, FLAGS

from .test_tour import free_port
from .test_up import Up, data  # noqa: F401 - a fixture

TOUR = (Path(__file__).parents[2] / "docs" / "console-tour.md").read_text()
STEP = re.compile(
    r"<!-- tour: (?P<command>\w+) -->(?:\n```sh\n(?P<block>.*?)^```$)?"
    r"|\*(?P<label>(?:[^*`\\]|\\.)+)\*: `(?P<value>[^`]+)`|\*(?P<name>(?:[^*`\\]|\\.)+)\*|“(?P<seen>[^”]+)”",
    re.MULTILINE | re.DOTALL,
)
PATIENCE = 30_000
"""Milliseconds in which what is said has to be seen: pages ask again after ten seconds."""
Start = Callable[..., subprocess.Popen[str]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)"),
    pytest.mark.timeout(300),
]


def steps() -> Iterator[dict[str, str]]:
    for found in STEP.finditer(TOUR[TOUR.index("<!-- tour: gateway -->") :]):
        yield {
            kind: text if kind == "block" else re.sub(r"\\(.)", r"\1", " ".join(text.split()))
            for kind, text in found.groupdict().items()
            if text is not None
        }


async def test_whoever_clicks_what_the_tour_says_sees_what_it_says(start: Start, data: Path) -> None:  # noqa: F811
    port = str(free_port())
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page()
        walk = Walk(start, page, port)
        for step in steps():
            await walk.do(step)
        await browser.close()
    assert {"gateway", "listen", "stop", "post"} <= walk.commands


class Walk:
    """Somebody with a browser and two terminals."""

    def __init__(self, start: Start, page: Page, port: str) -> None:
        self._start, self._page, self._port = start, page, port
        self._secret = ""
        self._partner: subprocess.Popen[str] | None = None
        self.commands: set[str] = set()

    async def do(self, step: dict[str, str]) -> None:
        match step:
            case {"command": command}:
                self.commands.add(command)
                await self._run(command, step.get("block", ""))
            case {"label": label, "value": value}:
                field = self._page.get_by_label(label, exact=True)
                await field.fill(value.replace("127.0.0.1:9000", f"127.0.0.1:{self._port}"))
            case {"name": name}:
                await self._choose(name)
            case {"seen": seen}:
                await expect(self._page.locator("main")).to_contain_text(seen, timeout=PATIENCE, use_inner_text=True)

    async def _choose(self, name: str) -> None:
        page, named = self._page, re.compile(rf"^\s*{re.escape(name)}\s*$")
        choices = page.get_by_role("checkbox", name=name).or_(page.get_by_role("radio", name=name))
        found = page.get_by_role("link", name=name, exact=True).or_(page.get_by_role("button", name=name, exact=True))
        found = found.or_(page.locator("summary").filter(has_text=named)).filter(visible=True)
        some = found.or_(choices).or_(page.get_by_role("link", name=name))
        await expect(some.first).to_be_visible(timeout=PATIENCE)
        if await found.count():
            await found.last.click()  # what asks to confirm comes before the button of the same name
        elif await choices.count():
            await choices.first.check()
        else:
            await some.first.click()
        await page.wait_for_load_state()

    async def _run(self, command: str, block: str) -> None:
        arguments = re.findall(r"^\.venv/bin/webhook-gateway (.+)$", block, re.MULTILINE)
        match command:
            case "gateway":
                self.up = await asyncio.to_thread(lambda: Up(self._start(*arguments[0].split(), "--port", "0")))
                await self._page.goto(self.up.printed["console"])
                await self._page.wait_for_url(f"{self.up.url}/console")
            case "listen":
                self._secret = self._secret or await self._page.locator(".secret code").inner_text()
                given = [self._port if word == "9000" else word for word in ["listen", "--port", "9000"]]
                assert not arguments or arguments[0].split() == ["listen", "--port", "9000"]
                self._partner = self._start(*given, settings={"WEBHOOK_SECRET": self._secret})
                assert self._partner.stderr is not None
                said = await asyncio.to_thread(self._partner.stderr.readline)
                assert said.startswith("listening on "), said
            case "stop":
                assert self._partner is not None
                self._partner.terminate()
                await asyncio.to_thread(self._partner.wait, 30)
            case "post":
                lines = block.replace("http://127.0.0.1:8080", self.up.url).replace("whk_…", self.up.printed["key"])
                shell = ["bash", "-c", lines]
                ran = await asyncio.to_thread(subprocess.run, shell, capture_output=True, text=True, timeout=60)
                assert ran.stdout.count('"duplicate":false') == 2, ran.stdout + ran.stderr
