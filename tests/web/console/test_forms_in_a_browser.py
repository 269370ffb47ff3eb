"""What a form is answered with, in a real Chromium: its steps by the keyboard alone, with and without a script."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.web.console.test_in_a_browser import NARROW, browser, pytestmark, violations, visiting  # noqa: F401 - fixtures
from tests.web.console.test_many import MANY_DEAD
from tests.web.serving import Api
from tests.web.world import World
from webhook_gateway.rules.scopes import Scope

WAYS = [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": NARROW}]


async def steps(page: Page, api: Api, world: World) -> list[str]:
    """Where each form of these pages leads with its fields as they are, and what is found there."""
    found, endpoint = [], f"{api.url}/console/endpoints/{world.endpoint_id}"
    for place, button in (
        (f"{api.url}/console/replays/new?endpoint_id={world.endpoint_id}", "Count them"),
        (f"{api.url}/console/deliveries/cancel?endpoint_id={world.endpoint_id}", "Count them"),
        (f"{endpoint}/backfill?event_id={world.event_id}", "Count them"),
        (f"{endpoint}/edit", "Preview"),
        (f"{endpoint}/edit", "Try the filter"),
    ):
        await page.goto(place)
        if button == "Try the filter":
            await page.get_by_label("Filter (JSON)").fill('{"staff_id": ["st_19"]}')
        await page.get_by_role("button", name=button).click()
        await page.wait_for_selector("#found, #preview")
        found += [f"{place}: {one}" for one in await violations(page)]
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        found += [f"{place} is {wide} px too wide"] if wide else []
    return found


@pytest.mark.parametrize("how", WAYS, ids=["light", "dark", "320 px"])
async def test_axe_finds_nothing_in_what_forms_are_answered_with(
    browser: Browser,  # noqa: F811
    api: Api,
    world: World,
    how: dict[str, Any],
) -> None:
    async with api.database.connection() as connection:
        await connection.execute(MANY_DEAD)
    async with visiting(browser, api, Scope.ADMIN, Scope.PAYLOAD_READ, bypass_csp=True, **how) as page:
        found = await steps(page, api, world)
        await page.goto(f"{api.url}/console/deliveries/{world.delivery_id}")
        await page.locator("summary", has_text="Read what was sent").click()
        await page.get_by_label("Why you have to read it").fill("complaint 17")
        await page.get_by_role("button", name="Read what was sent").click()
        await page.wait_for_selector("text=As cURL")
        found += await violations(page)
    assert found == []


@pytest.mark.parametrize("script", [True, False], ids=["with a script", "without"])
async def test_a_replay_is_counted_corrected_and_confirmed_by_the_keyboard(
    browser: Browser,  # noqa: F811
    api: Api,
    world: World,
    script: bool,
) -> None:
    async with api.database.connection() as connection:
        await connection.execute(MANY_DEAD)
    async with visiting(browser, api, Scope.ADMIN) as page:
        state = await page.context.storage_state()
    context = await browser.new_context(storage_state=state, java_script_enabled=script)
    page = await context.new_page()
    await page.goto(f"{api.url}/console/replays/new?endpoint_id={world.endpoint_id}")
    await page.get_by_role("button", name="Count them").press("Enter")
    await expect(page.get_by_text("1,501 deliveries would be sent again")).to_be_visible()
    await page.keyboard.press("Tab")  # from what was found to what it asks for
    await expect(page.get_by_label("to confirm")).to_be_focused()
    await page.keyboard.type("15")
    await page.get_by_role("button", name="Send them again").press("Enter")
    await expect(page.get_by_text("Type 1501 to confirm.").first).to_be_visible()
    await page.get_by_label("to confirm").fill("1501")
    await page.get_by_role("button", name="Send them again").press("Enter")
    await expect(page.get_by_text("of 1,501 queued again")).to_be_visible()
    await context.close()
