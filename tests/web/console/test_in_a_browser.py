"""The console in a real Chromium: nothing breaks its policy, axe finds nothing, and the keyboard works everything.

Skipped where there is none; `chromium` is Debian's package, and WEBHOOK_TEST_CHROMIUM names another one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Route, async_playwright, expect

from tests.support.chromium import CHROMIUM, FLAGS
from tests.support.identity_provider import identity_provider
from tests.web.console.people import pages
from tests.web.console.test_accounts import hospital
from tests.web.console.test_pages import path_of
from tests.web.console.test_portal import link_to, of_the_partner
from tests.web.console.test_sign_in import offered
from tests.web.serving import Api
from tests.web.world import World
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store.notifications import STATS, notify
from webhook_gateway.web import live

AXE = (Path(__file__).parents[2] / "data" / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
TARGETS = "button, .button, select, summary, nav a, input:not([type=hidden], [type=checkbox], [type=radio]), .choice"
WORKABLE = "a, button, summary, label, select, input, textarea"
STATE = "[location.href, document.activeElement.localName, document.querySelectorAll('[open], :popover-open').length]"
NARROW = {"width": 320, "height": 700}
PATIENCE = 60_000
"""Milliseconds."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)"),
    pytest.mark.timeout(300),
]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@asynccontextmanager
async def visiting(browser: Browser, api: Api, *scopes: Scope, **how: Any) -> AsyncIterator[Page]:
    """A page that is signed in, and fails the test for whatever the browser complains about."""
    async with watched(browser, **how) as page:
        await page.goto(f"{api.url}/console/login#{await offered(api, *scopes)}")
        if how.get("java_script_enabled", True):
            await page.wait_for_url(f"{api.url}/console")
        yield page


@asynccontextmanager
async def watched(browser: Browser, **how: Any) -> AsyncIterator[Page]:
    complaints: list[str] = []
    # The tests' own axe may be brought in past the policy; what the pages do is still reported.
    context: BrowserContext = await browser.new_context(**how)
    page = await context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
    yield page
    await context.close()
    assert complaints == []


async def violations(page: Page) -> list[str]:
    found = await page.evaluate(
        "async ([code, rules]) => { const policy = trustedTypes.createPolicy('tests', { createScript: code => code });"
        " if (!window.axe) (0, eval)(policy.createScript(code));"
        " return (await axe.run({ runOnly: rules })).violations; }",
        [AXE, RULES],
    )
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:300]}" for one in found for node in one["nodes"]
    ]


in_all_looks = pytest.mark.parametrize(
    "how",
    [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": NARROW}],
    ids=["light", "dark", "320 px"],
)


async def assert_accessible(page: Page, urls: list[str]) -> None:
    found = []
    for url in urls:
        await page.goto(url)
        found += [f"{url}: {violation}" for violation in await violations(page)]
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, f"{url} is {wide} px too wide"
    assert found == []


@in_all_looks
async def test_axe_finds_nothing_on_any_page(browser: Browser, api: Api, world: World, how: dict[str, Any]) -> None:
    async with visiting(browser, api, Scope.ADMIN, Scope.PAYLOAD_READ, bypass_csp=True, **how) as page:
        await assert_accessible(page, [api.url + path_of(one, world) for one in pages("GET")])


@in_all_looks
async def test_axe_finds_nothing_on_any_page_of_the_portal(
    browser: Browser, api: Api, world: World, how: dict[str, Any]
) -> None:
    shown = [one for one in pages("GET", "/portal") if "{job_id}" not in one.path]
    urls = [api.url + of_the_partner(world, one) for one in shown]
    async with watched(browser, bypass_csp=True, **how) as page:
        await page.goto(f"{api.url}/portal/login#{await link_to(api, world, *Capability)}")
        await page.wait_for_url(f"{api.url}/portal")
        await assert_accessible(page, urls)
    async with visiting(browser, api, Scope.ADMIN, bypass_csp=True, **how) as page:
        await page.goto(f"{api.url}/console/partners/{world.subscriber_id}")
        await page.get_by_role("button", name="View as partner").click()
        await assert_accessible(page, [url for one, url in zip(shown, urls, strict=True) if one.by is Capability.VIEW])


async def test_where_it_is_narrow_each_delivery_shows_its_state_beside_its_type_and_none_has_to_be_scrolled_to(
    browser: Browser, api: Api, world: World
) -> None:
    async with visiting(browser, api, Scope.ADMIN, viewport=NARROW) as page:
        for path in ("/deliveries", f"/events/{world.event_id}", f"/endpoints/{world.endpoint_id}"):
            await page.goto(f"{api.url}/console{path}")
            table = page.get_by_role("table").filter(has=page.get_by_role("columnheader", name="Next or ended"))
            rows = await table.get_by_role("row").filter(has=page.get_by_role("rowheader")).all()
            assert rows, path
            for row in rows:
                kind, state = row.get_by_role("rowheader").get_by_role("link"), row.locator(".state")
                beside, shown = await kind.bounding_box(), await state.bounding_box()
                assert beside is not None
                assert shown is not None
                assert abs(shown["y"] - beside["y"]) < shown["height"], path
                assert shown["x"] + shown["width"] <= NARROW["width"], path
            assert await table.evaluate("one => one.parentElement.scrollWidth - one.parentElement.clientWidth") == 0


async def test_no_page_breaks_the_policy(browser: Browser, api: Api, world: World) -> None:
    async with visiting(browser, api, Scope.ADMIN, Scope.PAYLOAD_READ) as page:
        for one in pages("GET"):
            await page.goto(api.url + path_of(one, world), wait_until="networkidle")


async def test_what_is_polled_is_morphed_under_the_policy_and_keeps_the_focus(
    browser: Browser, api: Api, world: World
) -> None:
    async with visiting(browser, api, Scope.ADMIN) as page:
        await page.goto(f"{api.url}/console/deliveries")
        rows = await page.locator("#live tbody tr").count()
        async with api.database.connection() as connection:
            await connection.execute("DELETE FROM finished_deliveries")
        await page.locator(".find [type=search]").focus()
        await page.evaluate("htmx.trigger(document.getElementById('live'), 'stats')")
        await expect(page.locator("#live tbody tr")).to_have_count(rows - 1)
        assert await page.evaluate("document.activeElement.id") == "q"


async def test_what_one_points_at_or_holds_still_is_not_moved(browser: Browser, api: Api, world: World) -> None:
    async with visiting(browser, api, Scope.ADMIN) as page:
        await page.goto(f"{api.url}/console/deliveries")
        asked: list[str] = []

        def note(request: Any) -> None:
            if not re.search("/console/(static|live)", request.url):  # the browser takes the page's icon when it likes
                asked.append(request.url)

        page.on("request", note)
        await page.locator("#live tbody tr").first.hover()
        await page.evaluate("htmx.trigger(document.getElementById('live'), 'stats')")
        await page.evaluate("new Promise(done => setTimeout(done))")
        assert asked == []
        async with page.expect_response("**/console/deliveries"):
            await page.mouse.move(0, 0)  # now it is late
        await page.locator("[data-pauses]").click()
        asked.clear()
        await page.evaluate("htmx.trigger(document.getElementById('live'), 'stats')")
        await page.evaluate("new Promise(done => setTimeout(done))")
        assert asked == []
        assert await page.locator("#says").inner_text() == "This page stays as it is."


async def test_what_was_counted_is_shown_at_once_unless_a_confirmation_is_open(
    browser: Browser, api: Api, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "GAP", 0.01)
    async with visiting(browser, api, Scope.ADMIN) as page, api.database.connection() as connection:
        async with page.expect_response("**/console/live"):
            await page.goto(f"{api.url}/console/deliveries")
        rows = await page.locator("#live tbody tr").count()
        await connection.execute("DELETE FROM finished_deliveries")
        await page.locator(".find [type=search]").focus()
        await notify(api.database, STATS)
        await expect(page.locator("#live tbody tr")).to_have_count(rows - 1, timeout=PATIENCE)
        assert await page.evaluate("document.activeElement.id") == "q"
        # What stands open, as a confirmation does, stays as it is, and is late.
        await page.evaluate(
            "document.getElementById('live').insertAdjacentHTML('beforeend',"
            " '<details open><summary>Give it up</summary><p id=asked>Are you sure?</p></details>')"
        )
        await notify(api.database, STATS)
        async with asyncio.timeout(PATIENCE / 1000):
            while not await page.evaluate("late"):  # what waits within the page evaluates there, against the policy
                await page.wait_for_timeout(20)
        await expect(page.locator("#asked")).to_be_visible()
        await page.locator("#live summary", has_text="Give it up").click()
        await page.mouse.move(0, 0)
        await page.locator(".find [type=search]").focus()
        await expect(page.locator("#asked")).to_have_count(0, timeout=PATIENCE)


async def test_a_hidden_page_listens_to_nothing_and_catches_up_when_it_is_back(
    browser: Browser, api: Api, world: World
) -> None:
    hide = (
        "hidden => { Object.defineProperty(document, 'hidden', { get: () => hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    async with visiting(browser, api, Scope.ADMIN) as page:
        async with page.expect_response("**/console/live"):
            await page.goto(f"{api.url}/console/deliveries")
        rows = await page.locator("#live tbody tr").count()
        await page.evaluate(hide, True)
        assert await page.evaluate("stream") is None
        async with api.database.connection() as connection:
            await connection.execute("DELETE FROM finished_deliveries")
        async with page.expect_response("**/console/live"):
            await page.evaluate(hide, False)
        await expect(page.locator("#live tbody tr")).to_have_count(rows - 1, timeout=PATIENCE)


async def test_where_there_is_no_stream_the_page_asks_by_itself(browser: Browser, api: Api, world: World) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    await page.route("**/console/live", lambda route: route.abort())
    await page.goto(f"{api.url}/console/login#{await offered(api, Scope.ADMIN)}")
    await page.wait_for_url(f"{api.url}/console")
    async with page.expect_request("**/console", timeout=PATIENCE) as asked:
        pass
    assert (await asked.value).headers["hx-request"] == "true"
    await context.close()


async def test_the_end_of_a_session_is_told_where_the_page_was_kept_current(
    browser: Browser, api: Api, world: World
) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{api.url}/console/login#{await offered(api, Scope.ADMIN)}")
    await page.wait_for_url(f"{api.url}/console")
    async with api.database.connection() as connection:
        await connection.execute("UPDATE sessions SET ended_at = now()")
    await page.evaluate("htmx.trigger(document.getElementById('live'), 'stats')")
    await page.wait_for_selector("#live[role=alert]")
    assert "session has ended" in await page.locator("#live").inner_text()
    await context.close()


async def test_somebody_signs_in_with_the_hospitals_account_and_out(
    browser: Browser, database_url: str, tmp_path: Path
) -> None:
    # Another site, as the hospital's is: what a browser sends back from there is what counts.
    async with identity_provider("localhost") as provider, hospital(database_url, tmp_path, provider) as api:
        provider.has_page = True
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(f"{api.url}/console/deliveries?state=dead")
        await page.get_by_role("link", name="With the hospital's account").click()
        await page.get_by_role("button", name="It is me").click()
        await page.wait_for_url(f"{api.url}/console/deliveries?state=dead")
        assert "Anna Meier" in await page.locator(".who").inner_text()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("link", name="Sign out there, too")).to_be_visible()
        provider.person["groups"] = []
        await page.get_by_role("link", name="With the hospital's account").click()
        await page.get_by_role("button", name="It is me").click()
        await expect(page.get_by_role("heading", name="You have no access yet")).to_be_visible()
        await context.close()
        found = []
        context = await browser.new_context(bypass_csp=True)
        page = await context.new_page()
        for path in ("login?said=ended", "login/callback"):
            await page.goto(f"{api.url}/console/{path}")
            found += await violations(page)
        await context.close()
    assert found == []


async def test_everything_is_done_without_a_script(browser: Browser, api: Api, world: World) -> None:
    async with visiting(browser, api, Scope.ADMIN, java_script_enabled=False) as page:
        await page.fill("#key", await offered(api, Scope.ADMIN))
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("link", name="Partners").first.click()
        await page.get_by_role("link", name="New partner").click()
        await page.get_by_label("Name", exact=True).fill("Central laboratory")
        await page.get_by_label("lab_result.*").check()
        await page.get_by_role("button", name="Make the partner").click()
        await page.get_by_label("URL").fill("https://lab.example.com/hooks")
        await page.get_by_role("button", name="Make the endpoint").click()
        assert "whsec_" in await page.locator(".secret code").inner_text()
        await page.get_by_role("link", name="To the endpoint").click()
        await page.locator("summary", has_text="Pause it").click()
        await page.get_by_label("Why").fill("certificate change")
        await page.get_by_role("button", name="Pause it").click()
        assert "certificate change" in await page.locator("main").inner_text()
        await page.get_by_role("button", name="Resume").click()
        assert "Nothing was sent to it yet." in await page.locator("main").inner_text()
        await page.get_by_role("button", name="Sign out").click()
        assert page.url.startswith(f"{api.url}/console/login")


async def test_the_keyboard_reaches_everything_that_can_be_worked(browser: Browser, api: Api, world: World) -> None:
    reachable = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"
    async with visiting(browser, api, Scope.ADMIN, Scope.PAYLOAD_READ) as page:
        for path in (
            "",
            f"/deliveries/{world.delivery_id}",
            f"/endpoints/{world.endpoint_id}",
            "/keys/new",
            "/audit",
            "/catalogue/new",
        ):
            await page.goto(f"{api.url}/console{path}")
            expected = await page.evaluate(
                f"[...document.querySelectorAll(`{reachable}`)].filter(e => e.checkVisibility() && !e.disabled)"
                ".map((e, at) => (e.dataset.at = at, e.type === 'radio' ? e.name : at)).length"
            )
            radios = await page.evaluate("document.querySelectorAll('input[type=radio]').length")
            parts = 7 * await page.evaluate("document.querySelectorAll('input[type=datetime-local]').length")
            seen = set()
            for _ in range(expected + parts + 5):
                await page.keyboard.press("Tab")
                at, ring, html = await page.evaluate(
                    "(e => [e.dataset.at, getComputedStyle(e).outlineStyle, e.outerHTML.slice(0, 120)])"
                    "(document.activeElement)"
                )
                if at is not None:
                    seen.add(at)
                    assert ring != "none", f"{path}: nobody sees where the focus is: {html}"
            assert len(seen) >= expected - max(0, radios - 1), path


async def to(page: Page, name: str, *, role: str = "") -> None:
    """Goes on with the tabulator until the focus is on what a reader would call so."""
    for _ in range(120):
        await page.keyboard.press("Tab")
        if await page.evaluate(
            "([name, role]) => { const at = document.activeElement, label = at.labels?.[0]; return role ?"
            " at.localName === role && at.innerText.trim().startsWith(name)"
            " : (label ?? at).innerText?.trim().startsWith(name) }",
            [name, role],
        ):
            return
    raise AssertionError(f"the keyboard does not reach {name}")


async def test_the_keyboard_alone_registers_a_partner_and_works_what_asks_for_confirmation(
    browser: Browser, api: Api
) -> None:
    async with visiting(browser, api, Scope.ADMIN) as page:
        keys = page.keyboard
        await to(page, "Skip to the content")
        await keys.press("Enter")
        await to(page, "New partner")
        await keys.press("Enter")
        await page.wait_for_url("**/partners/new")
        await to(page, "Name")
        await keys.type("Central laboratory")
        await to(page, "lab_result.*")
        await keys.press("Space")
        await to(page, "Thin")
        await keys.press("ArrowDown")
        await keys.press("ArrowUp")
        await to(page, "Make the partner")
        await keys.press("Enter")
        await page.wait_for_url("**/endpoints/new?said=partner")
        await to(page, "URL")
        await keys.type("https://lab.example.com/hooks")
        await keys.press("Enter")
        await expect(page.locator(".secret code")).to_contain_text("whsec_")
        await to(page, "Copy")
        await to(page, "To the endpoint")
        await keys.press("Enter")
        await page.wait_for_url("**/endpoints/ep_*")
        await to(page, "Pause it", role="summary")
        await keys.press("Enter")
        await to(page, "Why")
        await keys.type("certificate change")
        await to(page, "Pause it", role="button")
        await keys.press("Enter")
        await expect(page.locator("main")).to_contain_text("certificate change")
        await to(page, "Resume")
        await keys.press("Enter")
        await expect(page.locator("main")).to_contain_text("Nothing was sent to it yet.")
        await to(page, "Times in")
        await keys.type("This computer")
        await to(page, "Show")
        async with page.expect_navigation():
            await keys.press("Enter")
        await to(page, "Sign out")
        await keys.press("Enter")
        await page.wait_for_url("**/login?said=ended")


async def test_times_are_shown_in_the_zone_of_this_computer_in_sentences_too(
    browser: Browser, api: Api, world: World
) -> None:
    async with visiting(browser, api, Scope.ADMIN, timezone_id="Asia/Tokyo") as page:
        await page.goto(f"{api.url}/console/deliveries/{world.delivery_id}")
        await expect(page.locator("main time").first).to_contain_text("UTC")
        await page.get_by_label("Times in").select_option("This computer (Asia/Tokyo)")
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("main time").first).to_contain_text("JST")
        await expect(page.locator(".note .why")).to_contain_text(re.compile(r"Given up [0-9: -]+ JST after"))
        await expect(page.get_by_label("Times in")).to_have_value("Asia/Tokyo")


async def test_the_end_of_a_session_is_announced_before_it_comes(browser: Browser, api: Api, world: World) -> None:
    async with visiting(browser, api, Scope.ADMIN) as page:
        await page.clock.install()
        await page.goto(f"{api.url}/console/keys/new")
        said = page.locator("#says[aria-live=polite]")
        await page.clock.fast_forward("20:00")
        await expect(said).to_have_text("")
        await page.clock.fast_forward("07:10")
        await expect(said).to_have_text("Your session ends in two minutes unless you open a page or send a form.")
        async with api.database.connection() as connection:
            await connection.execute("UPDATE sessions SET expires_at = now() + interval '10 minutes'")
        await page.reload()
        await page.clock.fast_forward("02:00")
        await expect(said).to_have_text("")
        await page.clock.fast_forward("05:30")
        await expect(said).to_have_text("Your session ends in two minutes: save your work, and sign in again.")


async def test_a_form_is_sent_once_and_says_so_but_one_that_takes_a_file_away_can_be_used_on(
    browser: Browser, api: Api, world: World
) -> None:
    async with visiting(browser, api, Scope.ADMIN) as page:
        await page.goto(f"{api.url}/console/disclosures")
        await page.get_by_label("Partner", exact=True).select_option("Northside")
        for button in ("As CSV", "As CSV"):
            async with page.expect_download() as downloaded:
                await page.get_by_role("button", name=button).click()
            assert (await downloaded.value).suggested_filename == "disclosures.csv"
        await page.get_by_role("button", name="Search").click()
        await expect(page.locator("main")).to_contain_text("Newest deliveries first")
        await page.goto(f"{api.url}/console/audit")
        for button, name in (("These as CSV", "audit.csv"), ("All, signed", "audit.jsonl")):
            async with page.expect_download() as downloaded:
                await page.get_by_role("button", name=button).click()
            assert (await downloaded.value).suggested_filename == name
        await page.goto(f"{api.url}/console/partners/new")
        await page.get_by_label("Name", exact=True).fill("Central laboratory")
        sent: list[str] = []
        held = asyncio.Event()

        async def hold(route: Route) -> None:
            sent.append(route.request.method)
            await held.wait()
            await route.continue_()

        await page.route("**/partners/new", hold)
        press = "document.querySelector('main form button.main').click()"
        said = (
            "new Promise(done => new MutationObserver(() => done(says.textContent)).observe(says, {childList: true}))"
        )
        assert await page.evaluate(f"() => {{ {press}; {press}; return {said} }}") == "Under way …"
        held.set()
        await page.wait_for_url("**/endpoints/new?said=partner")
        assert sent == ["POST"]


async def test_targets_are_large_enough_and_no_letter_acts(browser: Browser, api: Api, world: World) -> None:
    async with visiting(browser, api, Scope.ADMIN) as page:
        for one in pages("GET"):
            await page.goto(api.url + path_of(one, world))
            small = await page.evaluate(
                f"[...document.querySelectorAll(`{TARGETS}`)].filter(e => e.checkVisibility()).filter(e => "
                "Math.min(e.getBoundingClientRect().height, e.getBoundingClientRect().width) < 24)"
                ".map(e => e.outerHTML.slice(0, 120))"
            )
            assert small == [], one.path
            before = await page.evaluate(STATE)
            for letter in "abcdefghijklmnopqrstuvwxyz/?":
                await page.keyboard.press(letter)
            assert await page.evaluate(STATE) == before, one.path


async def test_a_reader_hears_where_each_table_and_field_belongs(browser: Browser, api: Api, world: World) -> None:
    async with visiting(browser, api, Scope.ADMIN) as page:
        for one in pages("GET"):
            await page.goto(api.url + path_of(one, world))
            html = await page.content()
            for table in re.findall(r"<table>.*?</table>", html, re.DOTALL):
                assert "<caption>" in table, one.path
                assert re.findall(r"<th(?![^>]*scope=)[ >]", table) == [], one.path
            assert "onclick" not in html
            clickable = await page.evaluate(
                "[...document.querySelectorAll('main *')].filter(e => getComputedStyle(e).cursor === 'pointer'"
                f" && !e.closest(`{WORKABLE}`)).map(e => e.outerHTML.slice(0, 120))"
            )
            assert clickable == [], f"{one.path}: the keyboard works none of these"
            assert (
                await page.locator("tr[tabindex], tr[role], [tabindex]:not([tabindex='0'], [tabindex='-1'])").count()
                == 0
            )


async def test_a_partner_opens_its_link_and_does_what_it_lets_it(browser: Browser, api: Api, world: World) -> None:
    url = f"{api.url}/portal/login#{await link_to(api, world, Capability.TEST, Capability.SECRET)}"
    async with watched(browser) as page:
        await page.goto(url)
        await page.wait_for_url(f"{api.url}/portal")
        await page.get_by_role("link", name="Deliveries", exact=True).click()
        await page.locator(f"#{world.delivery_id} a").first.click()
        assert world.delivery_id in await page.locator("main").inner_text()
        assert await page.get_by_role("button", name="Send it again").count() == 0
        await page.get_by_role("link", name="Endpoints", exact=True).click()
        await page.get_by_role("link", name="https://lab.example.com/in").click()
        await page.locator("summary", has_text="Rotate its secret").click()
        await page.get_by_role("button", name="Rotate its secret").click()
        assert "whsec_" in await page.locator(".secret code").inner_text()
        await page.get_by_role("button", name="Send a test").click()
        await page.wait_for_url(f"{api.url}/portal/deliveries/*", timeout=60_000)
        assert "The test was queued" in await page.locator("main").inner_text()
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(url)
    await expect(page.get_by_role("alert")).to_contain_text("used already")
    await context.close()


async def test_a_link_is_pasted_where_there_is_no_script(browser: Browser, api: Api, world: World) -> None:
    url = f"{api.url}/portal/login#{await link_to(api, world, Capability.REPLAY)}"
    async with watched(browser, java_script_enabled=False) as page:
        await page.goto(url)
        await page.get_by_label("Your link, or its code").fill(url)
        await page.get_by_role("button", name="Open").click()
        await page.goto(f"{api.url}/portal/deliveries/{world.delivery_id}")
        await page.get_by_role("button", name="Send it again").click()
        assert "It is sent again." in await page.locator("main").inner_text()
        await page.get_by_role("button", name="Sign out").click()
        assert page.url.startswith(f"{api.url}/portal/login")
