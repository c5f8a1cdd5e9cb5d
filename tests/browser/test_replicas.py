"""The page shows all replicas that share a store, and what happens to them."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from authz.demo.issuer.signing import SigningKey
from tests.doubles import ORG, jwks, m2m_claims
from tests.programs import PATIENCE
from tests.server.admin.site import Site
from tests.store.engines import Engine


@pytest.fixture
def store() -> Iterator[Engine]:
    with Engine("valkey") as engine:
        yield engine


def replica(folder: Path, key: SigningKey, store: Engine, *flags: str) -> Site:
    folder.mkdir()
    (folder / "jwks.json").write_text(json.dumps(jwks(key)))
    (folder / "policy.json").write_text(json.dumps({"name": "ledger", "allow_rules": [{"name": "everybody"}]}))
    return Site(folder, "--policy", "policy.json", "--store", store.url, *flags)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE * 1000)
    yield context.new_page()
    context.close()


def test_replicas_are_shown_and_what_is_ordered_at_one_of_them_at_all(
    page: Page, tmp_path: Path, ec_key: SigningKey, store: Engine
) -> None:
    with (
        replica(tmp_path / "a", ec_key, store, "--store-region", "eu-1") as here,
        replica(tmp_path / "b", ec_key, store, "--store-region", "us-1", "--workers", "2") as there,
    ):
        page.goto(here.url)
        rows = page.locator("#replica-rows tr")
        expect(rows).to_have_count(2)
        there.order("suspend", ORG)
        expect(page.locator("#order-rows tr")).to_contain_text("admin page")
        own, other = rows.filter(has_text="eu-1"), rows.filter(has_text="us-1")
        expect(own).to_contain_text("this one")
        expect(other).not_to_contain_text("this one")
        expect(other).to_contain_text("ledger")
        for row in (own, other):
            expect(row.locator(".tag.allow")).to_have_text("✓ all")
        result = Axe().run(page, context="#replicas")
        show_decisions_of_one(page, here, there, ec_key.sign(m2m_claims(time.time())), store)
        expect(page.locator("#replicas-meta")).to_have_text("2 replicas · the store answers")
        store.kill()
        expect(page.locator("#replicas-meta")).to_contain_text("nothing heard of the store for")
        expect(page.locator("#replicas-note")).to_contain_text("store: ")
        # What was ordered stays in force.
        expect(page.locator("#order-rows tr")).to_have_count(1)

    assert result.violations_count == 0, result.generate_report()


def show_decisions_of_one(page: Page, here: Site, there: Site, token: str, store: Engine) -> None:
    title = page.title()
    hostile = "/a.B/<img/src=x/onerror=document.title='stolen'>"
    rows = page.locator("#decision-rows tr")
    here.check(token, path="/a.B/Here")
    there.until(lambda: there.check(token, path=hostile) and rows.filter(has_text="<img/src=x").count())
    note = page.locator("#decisions-note")
    # The other one may have made more decisions a second than it tells.
    said = re.search(r"left out (\d+)", note.inner_text())
    left_out = 7 if said is None else 7 + int(said[1])
    with store.client() as client:
        forged = {"replica": "0123456789ab-1", "left_out": 7, "decisions": []}
        for text in ("<script>document.title = 'stolen'</script>", "x" * 1_000_000, json.dumps(forged)):
            client.xadd("authz:d:log", {"d": text})
    more = "|".join(map(str, range(left_out, left_out + 50)))
    expect(note).to_contain_text(re.compile(rf"left out ({more})\."), timeout=PATIENCE * 1000)
    expect(rows.filter(has_text="/a.B/Here")).to_have_count(1)
    [other] = [each["id"] for each in here.get("overview")["replicas"] if not each["is_this"]]
    page.locator("#filter-replica").select_option(other)
    expect(rows.filter(has_text="/a.B/Here")).to_have_count(0)
    expect(rows.filter(has_text="<img/src=x").first).to_be_visible()
    expect(rows.locator(f".time .second:not([title='{other}'])")).to_have_count(0)
    page.locator("#filter-replica").select_option("")
    here.check(token, path="/a.B/Again")
    expect(rows.filter(has_text="/a.B/Again")).to_have_count(1)
    assert page.title() == title


def test_without_a_store_no_replicas_are_shown(page: Page, tmp_path: Path, ec_key: SigningKey) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    with Site(tmp_path) as site:
        page.goto(site.url)
        expect(page.locator("#server")).to_contain_text("version")
        expect(page.locator("#orders-empty")).to_be_visible()
        expect(page.locator("#filter-replica")).not_to_be_visible()
        expect(page.locator("#replicas")).not_to_be_visible()
