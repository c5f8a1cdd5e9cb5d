"""The page shows what applications are called in WorkOS, how far WorkOS is followed, and who ordered what."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from authz.demo.issuer.directory import Application, Directory, Organization
from authz.demo.issuer.program import Issuer, IssuerServer
from authz.demo.issuer.signing import SigningKey
from tests.doubles import m2m_claims
from tests.programs import PATIENCE
from tests.server.admin.site import SECRET
from tests.server.workos.replica import Replica
from tests.store.engines import Engine

UNAUTHENTICATED = 16
HOSTILE = "<img src=x onerror=document.title='stolen'>\u202egnorts\x1b[2J"
SHOWN = r"<img src=x onerror=document.title='stolen'>\u202egnorts\x1b[2J"
ACME, OTHER = "org_01JYACME000000000000000001", "org_01JYOTHER00000000000000001"
TILLS, EVIL = "client_01JYTILLS00000000000000001", "client_01JYEVIL000000000000000001"

expect.set_options(timeout=PATIENCE * 1000)


def organization(org_id: str, client_id: str, name: str, description: str) -> Organization:
    application = Application(
        client_id=client_id, client_secret="s", name=name, org_id=org_id, scopes=(), description=description
    )
    return Organization(id=org_id, name=name[:4], applications=(application,))


@pytest.fixture
def issuer(ec_key: SigningKey) -> Iterator[IssuerServer]:
    organizations = (
        organization(ACME, TILLS, "Tills", "Takes the money of the shops"),
        organization(OTHER, EVIL, HOSTILE, "Long words" * 50),
    )
    with IssuerServer(Issuer(directory=Directory(audience="a", organizations=organizations), keys=[ec_key])) as issuer:
        yield issuer


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == []


def test_names_the_cursor_and_the_source_of_orders_are_shown(
    page: Page, tmp_path: Path, issuer: IssuerServer, ec_key: SigningKey
) -> None:
    now = time.time()
    tokens = [
        ec_key.sign(m2m_claims(now, org_id=org_id, client_id=client, sub=client))
        for org_id, client in ((ACME, TILLS), (OTHER, EVIL))
    ]
    with (
        Engine("valkey") as store,
        Replica(tmp_path / "a", issuer, "--store", store.url, "--workos-applications") as site,
    ):
        site.until(lambda: [site.check(token) for token in tokens] and names_of(site) == {"Tills", SHOWN})
        page.goto(site.url)
        rows = page.locator("#decision-rows tr")
        expect(rows.filter(has_text="Tills").first.locator(".caller .second").last).to_have_text(
            re.compile(r"^Tills client_01JY")
        )
        see_a_revoked_client(page)
        see_a_deleted_organization(page, site, issuer, tokens[1])
        result = Axe().run(page, context="#orders")
        for width in (320, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width

        assert page.locator("main img, dialog img").count() == 0
        assert page.title() == "authz admin"
        assert "\u202e" not in page.content()
    assert result.violations_count == 0, result.generate_report()


def names_of(site: Replica) -> set[str]:
    return {each["client_name"] for each in site.get("decisions")["decisions"]} - {""}


def see_a_revoked_client(page: Page) -> None:
    page.locator(f"#organization-rows button[title='{ACME}']").click()
    listed = page.locator("#organization .clients li").filter(has_text="client_")
    expect(listed).to_contain_text("Tills")
    expect(listed).to_contain_text("Takes the money of the shops")
    listed.get_by_role("button").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("#act-id")).to_contain_text(f"Tills · {TILLS}")
    dialog.get_by_label("Admin secret").fill(SECRET)
    dialog.get_by_role("button", name="Revoke").click()
    order = page.locator("#order-rows tr").filter(has_text="revoke client")
    expect(order.locator(".what")).to_contain_text("Tills")
    expect(order.locator(".what .application")).to_have_attribute("title", "Takes the money of the shops")


def see_a_deleted_organization(page: Page, site: Replica, issuer: IssuerServer, token: str) -> None:
    expect(page.locator("#orders-source")).to_contain_text("WorkOS")
    issuer.issuer.environment.delete_organization(OTHER)
    [event], _ = issuer.issuer.environment.events.page(["organization.deleted"], limit=1, is_ascending=False)
    source = page.locator("#orders-source")
    expect(source.locator("code")).to_have_text(event.id)
    expect(source).to_contain_text(re.compile(r"followed up to event_\S+ of .* · by \S+ · heard \d+ s ago"))
    site.until(lambda: site.check(token) == [UNAUTHENTICATED])
    # That of the chosen organization.
    page.locator("#filter-organization").fill("")
    refused = page.locator("#decision-rows tr").filter(has_text="An order from WorkOS keeps this caller out.")
    expect(refused.first).to_contain_text(SHOWN)
    assert site.get("overview")["source"]["cursor"]["id"] == event.id
