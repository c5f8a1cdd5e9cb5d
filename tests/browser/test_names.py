"""The page shows what organizations are called and in which zone times are, on wide and narrow screens."""

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from authz.demo.issuer.signing import SigningKey
from tests.doubles import ORG, jwks, m2m_claims
from tests.programs import PATIENCE
from tests.server.admin.site import SECRET, Site

HOSTILE = "<img src=x onerror=document.title='stolen'>\u202egnorts\x1b[2J"
SHOWN = r"<img src=x onerror=document.title='stolen'>\u202egnorts\x1b[2J"
LONG, ODD, OUT, PLAIN, QUIET = (
    f"org_01JY{name}".ljust(29, "0") + "1" for name in ("LONG", "ODD", "OUT", "PLAIN", "QUIET")
)
POLICY: dict[str, Any] = {
    "name": "ledger",
    "allow_rules": [{"name": "a-rule-whose-name-is-not-short", "request": {"paths": ["/a.B/*", "/c.D/*"]}}],
    "quotas": {"gold": {"requests_per_second": 1000}},
    "organizations": {
        ORG: {"name": "Acme Freight", "tenant": "acme-7", "quota": "gold"},
        ODD: {"name": HOSTILE, "tenant": "t-odd"},
        LONG: {"name": "Donaudampfschifffahrtsgesellschaft" * 40, "tenant": "x" * 250},
        OUT: {"name": "Umbrella", "status": "suspended"},
        PLAIN: {},
        QUIET: {"name": "Quiet Ltd", "tenant": "quiet-1"},
    },
}

expect.set_options(timeout=PATIENCE * 1000)

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, ec_key: SigningKey) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("names")
    (folder / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    (folder / "policy.json").write_text(json.dumps(POLICY))
    with Site(folder, "--policy", "policy.json") as site:
        for org_id in (ORG, ODD, LONG, OUT, PLAIN):
            site.check(ec_key.sign(m2m_claims(time.time(), org_id=org_id)), path=f"/a.B/{'Long' * 30}")
        yield site


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[OpenPage]:
    """Return a function that opens the page; at the end the browser may have complained of nothing."""
    complaints: list[str] = []
    contexts = []

    def open_page(width: int = 1280, zone: str = "Asia/Kolkata") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, timezone_id=zone, reduced_motion="reduce", locale="en-GB"
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(site.url)
        expect(page.locator("#decision-rows tr")).to_have_count(5)
        expect(page.locator("#organizations").get_by_role("button", name="Acme Freight")).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def test_names_and_tenants_stand_beside_ids(open_page: OpenPage, site: Site) -> None:
    page = open_page()
    row = page.locator("#decision-rows tr").filter(has_text="Acme Freight")
    expect(row.locator(".caller")).to_contain_text("tenant acme-7")
    expect(row.locator(".caller code").first).to_have_attribute("title", ORG)
    expect(page.locator("#decision-rows tr").filter(has_text="PLA").locator("button")).to_have_attribute("title", PLAIN)
    page.locator("#organizations").get_by_role("button", name="Acme Freight").click()
    chosen = page.locator("#organization")
    expect(chosen.locator("h3")).to_have_text("Acme Freight")
    expect(chosen.locator("dl")).to_contain_text(ORG)
    expect(chosen.locator("dl")).to_contain_text("gold (1000 a second")
    page.get_by_role("button", name="Suspend organization").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("#act-id")).to_have_text(f"Acme Freight · {ORG} · tenant acme-7")
    dialog.get_by_label("Admin secret").fill(SECRET)
    dialog.get_by_role("button", name="Suspend").click()
    expect(page.get_by_role("status")).to_contain_text(f"Acme Freight ({ORG}) is suspended")
    order = page.locator("#order-rows tr")
    expect(order.locator(".what")).to_contain_text("Acme Freight")
    expect(order.locator(".what")).to_contain_text("tenant acme-7")
    site.order("resume", ORG)
    expect(page.locator("#orders-empty")).to_be_visible()


def test_a_client_is_shown_with_its_organization(open_page: OpenPage, site: Site) -> None:
    site.order("revoke", m2m_claims(time.time())["client_id"])
    page = open_page()

    expect(page.locator("#order-rows .what")).to_contain_text(re.compile("of (Acme Freight|org_|<img|Dona|Umbrella)"))
    site.order("reinstate", m2m_claims(time.time())["client_id"])


def test_an_organization_that_has_not_called_has_its_name_too(open_page: OpenPage, site: Site) -> None:
    site.order("suspend", QUIET)
    page = open_page()
    listed = page.locator("#organization-rows tr").filter(has_text="Quiet Ltd")
    expect(listed).to_contain_text("tenant quiet-1")
    expect(page.locator("#order-rows tr")).to_contain_text("Quiet Ltd")
    listed.get_by_role("button").click()
    expect(page.locator("#organization dl")).to_contain_text("quiet-1")
    site.order("resume", QUIET)


def test_the_filter_knows_names_and_tenants(open_page: OpenPage) -> None:
    page = open_page()
    rows = page.locator("#decision-rows tr")
    for text in ("acme fr", "ACME-7", ORG[4:12]):
        page.locator("#filter-organization").fill(text)
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text("Acme Freight")


def test_a_hostile_name_is_a_text_with_every_character_visible(open_page: OpenPage, site: Site) -> None:
    site.order("suspend", ODD)
    page = open_page()
    page.locator("#organizations").get_by_role("button", name="<img").click()
    page.get_by_role("button", name="Resume", exact=True).click()
    shown = ("#decision-rows .caller button", "#organization h3", "#order-rows .what code")
    for place in shown:
        expect(page.locator(place).filter(has_text="<img")).to_have_text(SHOWN)
    expect(page.locator("#act-id")).to_contain_text(SHOWN)

    assert page.locator("main img, dialog img").count() == 0
    assert page.title() == "authz admin"
    assert "\u202e" not in page.content()
    site.order("resume", ODD)


def test_a_long_name_is_cut(site: Site) -> None:
    told = {each["id"]: each["known"] for each in site.get("overview")["organizations"]}

    assert len(told[LONG]["name"]) <= 120
    assert told[LONG]["name"].endswith("more characters]")


@pytest.mark.parametrize(
    ("zone", "named", "hours"), [("Asia/Kolkata", "GMT+5:30", 5.5), ("America/Phoenix", "MST", -7), ("UTC", "UTC", 0)]
)
def test_times_name_their_zone_and_have_utc_in_their_title(
    open_page: OpenPage, site: Site, zone: str, named: str, hours: float
) -> None:
    page = open_page(zone=zone)
    decision = site.get("decisions")["decisions"][-1]
    shown = page.locator("#decision-rows tr").first.locator("time")

    utc = datetime.fromtimestamp(int(decision["time"]), UTC)
    local = datetime.fromtimestamp(int(decision["time"]) + hours * 3600, UTC)
    expect(shown).to_have_text(re.compile(rf"^{local:%H:%M:%S}\s+{re.escape(named)}|MST$"))
    expect(shown).to_have_attribute("title", f"{utc:%Y-%m-%d %H:%M:%S} UTC")
    expect(page.locator("#policy-note")).to_contain_text(re.compile(r"Counted since \d\d:\d\d:\d\d \S+"))
    expect(page.locator("#policy-rows time")).to_have_attribute("title", re.compile(r" UTC$"))


def wider_than(page: Page) -> list[str]:
    """Return what reaches beyond the sides of the screen, other than within what scrolls by itself."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter((on) => {
            const box = on.getBoundingClientRect();
            const scrolls = on.closest('table.replicas, .skip, .hidden, thead, datalist, dialog');
            return !scrolls && box.width > 1 && (box.right > innerWidth + 1 || box.left < -1);
        }).map((on) => `${on.tagName} ${on.id} ${on.className} ${on.textContent.slice(0, 40)}`)"""
    )
    return found


@pytest.mark.parametrize("width", [320, 500, 700, 900, 1280])
def test_nothing_is_out_of_sight_to_the_side(open_page: OpenPage, site: Site, width: int) -> None:
    site.order("suspend", LONG)
    page = open_page(width)
    page.locator("#order-rows tr").wait_for()
    page.locator("#organizations").get_by_role("button", name="Donau").click()
    page.get_by_label("Method", exact=True).fill(f"/a.B/{'Long' * 30}")
    page.locator("#ask-organization").fill(LONG)
    page.get_by_role("button", name="Explain").click()
    page.locator("#explanation .verdict").wait_for()

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert wider_than(page) == []
    if width <= 500:
        # Nothing has to be scrolled to the side within the panels either.
        sideways = "[...document.querySelectorAll('.scroll')].filter((on) => on.scrollWidth > on.clientWidth + 1)"
        assert page.evaluate(f"{sideways}.map((on) => on.ariaLabel)") == []
    site.order("resume", LONG)


@pytest.mark.parametrize("width", [320, 500])
def test_a_narrow_page_meets_wcag_aa(open_page: OpenPage, site: Site, width: int) -> None:
    site.order("suspend", ODD)
    page = open_page(width)
    page.locator("#order-rows tr").wait_for()
    page.locator("#organizations").get_by_role("button", name="Acme Freight").click()
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
    result = Axe().run(page, options=rules)
    site.order("resume", ODD)

    assert result.violations_count == 0, result.generate_report()
