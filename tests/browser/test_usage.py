"""The plot of what an organization uses, in a real Chromium."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from authz.decisions.usage import HOUR, Row
from authz.demo.issuer.signing import SigningKey
from authz.store.usage.counts import UsageStore
from tests.doubles import ORG, jwks, m2m_claims
from tests.server.admin.site import Site
from tests.store.engines import Engine

HOSTILE = "/a.B/<img src=x onerror=document.title='stolen'>"


@pytest.fixture
def page(tmp_path: Path, ec_key: SigningKey, browser: Browser) -> Iterator[Page]:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    with Engine("valkey") as engine, Site(tmp_path, "--store", engine.url) as site:
        hour = int(time.time()) // HOUR * HOUR
        rows = {Row(hour - 2 * HOUR, ORG, "c", HOSTILE, "allowed", "grpc"): 1234}
        UsageStore(engine.store()).add("one", 1, rows)
        UsageStore(engine.store()).add("two", 1, {Row(hour, ORG, "c", "/a.B/C", "denied", "grpc"): 5})
        site.check(ec_key.sign(m2m_claims(time.time())))
        page = browser.new_page()
        page.goto(site.url)
        yield page
        page.close()


def test_the_chosen_organization_shows_what_it_uses_everywhere(page: Page) -> None:
    title = page.title()
    page.locator("#organization-rows button").first.click()

    plot = page.get_by_role("img", name="Last 24 hours: 1,234 calls were allowed and 5 refused")
    expect(plot).to_be_visible()
    expect(page.get_by_role("img", name="Last 30 days: 1,234 calls were allowed and 5 refused")).to_be_visible()
    expect(page.locator("#organization").get_by_title(HOSTILE)).to_contain_text(HOSTILE[-20:])
    assert page.title() == title
    assert Axe().run(page).violations_count == 0
