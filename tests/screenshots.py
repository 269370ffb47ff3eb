"""``make screenshots``: the console's pages as pictures for the documentation, light and dark, from the demo.

Beside the demo's partners there is one that refuses everything, so that there is something to find out.
"""

from __future__ import annotations

import asyncio
import base64
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

from tests.support.chromium import CHROMIUM, FLAGS
from tests.support.command_line import bare_environment, command
from tests.support.partner import partner, status
from webhook_gateway.client import AsyncGateway
from webhook_gateway.intake.catalogue import shipped

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SIZE: Any = {"width": 1280, "height": 800}
SHARPNESS, QUALITY, MOST = 1.5, 80, 150_000
"""Pixels of the picture for one of the page, of WebP, and bytes of a file."""
TYPE = "lab_result.final"
PATIENCE = 120.0


def main() -> None:
    if CHROMIUM is None:
        raise SystemExit(
            "there is no Chromium here: install Debian's package chromium, or name one in WEBHOOK_TEST_CHROMIUM"
        )
    with demo() as said:
        asyncio.run(take(said["API"], said["key"].split()[0]))


@contextmanager
def demo() -> Iterator[dict[str, str]]:
    """The demo, once its day is over: what it says, by the first word of each line."""
    process = subprocess.Popen(command("demo"), env=bare_environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = {}
    for line in process.stdout:
        word, _, rest = line.strip().partition(" ")
        said[word] = rest.strip()
        if line.startswith("it stays up"):
            break
    try:
        yield said
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


async def take(address: str, key: str) -> None:
    async with partner(otherwise=status(503)) as refuses, AsyncGateway(address, key) as gateway:
        endpoint_id = await trouble(gateway, refuses.url("/webhooks"))
        waiting = await until(gateway, "/v1/deliveries", endpoint_id=endpoint_id, waiting_for="breaker")
        await until(gateway, "/v1/problems", endpoint_id=endpoint_id)
        pages = {
            "overview": "",
            "delivery": f"/deliveries/{waiting}",
            "endpoint": f"/endpoints/{endpoint_id}",
            "problems": "/problems",
        }
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for scheme in ("light", "dark"):
                context = await browser.new_context(viewport=SIZE, device_scale_factor=SHARPNESS, color_scheme=scheme)
                page = await context.new_page()
                await page.goto(f"{address}/console/login")
                await page.fill("#key", key)
                await page.get_by_role("button", name="Sign in").click()
                for name, path in pages.items():
                    await page.goto(f"{address}/console{path}", wait_until="networkidle")
                    await shoot(page, PICTURES / f"console-{name}-{scheme}.webp")
            await browser.close()


async def trouble(gateway: AsyncGateway, url: str) -> str:
    """A partner that refuses what it gets; the id of its endpoint."""
    subscriber = await gateway.create_subscriber(
        "dialysis_clinic", "refuses", event_types=[TYPE], content={"level": "full"}
    )
    endpoint = await gateway.create_endpoint(subscriber.id, url, schedule=[1.0] * 6 + [600.0] * 6)
    (example,) = (dict(known.example) for known in shipped() if known.name == TYPE)
    for number in range(3):
        await gateway.post_event(TYPE, example, ordering_key=f"patient {number}")
    return str(endpoint.id)


async def until(gateway: AsyncGateway, path: str, *, endpoint_id: str, **wanted: str) -> str:
    """The id of the first delivery, or of the sample, as soon as there is one with these values."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for row in (await gateway.get(path, endpoint_id=endpoint_id))["items"]:
                if all(row[name] == value for name, value in wanted.items()):
                    return str(row.get("id") or row["delivery_id"])
            await asyncio.sleep(0.2)


async def shoot(page: Page, file: Path) -> None:
    session = await page.context.new_cdp_session(page)
    shot = await session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    picture = base64.b64decode(shot["data"])
    print(f"{file.name}: {len(picture):,} bytes")
    if len(picture) > MOST:
        raise SystemExit(f"{file.name} has more than {MOST:,} bytes")
    file.write_bytes(picture)


if __name__ == "__main__":
    main()
