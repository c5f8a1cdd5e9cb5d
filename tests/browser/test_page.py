"""The admin page in a real Chromium: what an operator sees, reaches with the keyboard, and can do."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from authz.demo.issuer.signing import SigningKey
from tests.doubles import ORG, jwks, m2m_claims
from tests.marked import service_file, with_imports
from tests.programs import PATIENCE
from tests.server.admin.site import SECRET, Site

OTHER = "org_01JYGLOBEX0000000000000001"
GONE = "org_01JYUMBRELLA00000000000001"
POLICY = {
    "name": "ledger",
    "deny_rules": [{"name": "no-import", "request": {"paths": ["*/Import"]}}],
    "allow_rules": [
        {"name": "readers", "source": {"scopes": ["ledger:read"]}, "request": {"paths": ["/a.B/*"]}},
        {"name": "never-called", "source": {"organizations": [OTHER]}, "request": {"paths": ["/never.Called/*"]}},
    ],
    "organizations": {ORG: {}, OTHER: {}, GONE: {"status": "suspended"}},
}
HOSTILE = "/a.B/<img src=x onerror=document.title='stolen'>"

expect.set_options(timeout=PATIENCE * 1000)

NewToken = Callable[..., str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, ec_key: SigningKey) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("browser")
    (folder / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    (folder / "policy.json").write_text(json.dumps(POLICY))
    (folder / "api.binpb").write_bytes(with_imports(service_file({"Call": {"scopes": ["ledger:read"]}})))
    with Site(folder, "--policy", "policy.json", "--descriptors", "api.binpb") as site:
        yield site


@pytest.fixture(scope="module")
def new_token(ec_key: SigningKey) -> NewToken:
    """Return a function that makes a good token, with changes."""
    return lambda **changes: ec_key.sign(m2m_claims(time.time(), **changes))


class Watch:
    """What a page did that it must not do, and where it asked."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        self.urls: set[str] = set()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.urls.add(request.url))


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """Return a function that opens the page; at the end nobody may have complained, nor asked anybody else."""
    watches, contexts = [], []

    def open_page(scheme: Literal["light", "dark"] = "light") -> Page:
        context = browser.new_context(
            color_scheme=scheme, reduced_motion="reduce", viewport={"width": 1280, "height": 900}
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        watches.append(Watch(page))
        page.goto(site.url)
        expect(page.locator("#server")).to_contain_text("version")
        return page

    yield open_page
    for context in contexts:
        context.close()
    # What the server refuses is shown on the page; Chromium notes it as well.
    refused = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")
    assert [text for watch in watches for text in watch.complaints if not refused.match(text)] == []
    assert {url for watch in watches for url in watch.urls if not url.startswith(f"{site.url}/")} == set()


def rows(page: Page) -> Any:
    return page.locator("#decision-rows tr")


def test_decision_appears_as_it_is_made_and_says_why_in_words(
    open_page: Callable[..., Page], site: Site, new_token: NewToken
) -> None:
    page = open_page()
    site.check(new_token(), path="/a.B/JustNow")
    site.check(new_token(exp=int(time.time()) - 60, iat=int(time.time()) - 900), path="/a.B/TooLate")
    allowed, denied = rows(page).filter(has_text="/a.B/JustNow"), rows(page).filter(has_text="/a.B/TooLate")

    expect(allowed).to_have_count(1)
    expect(allowed.locator(".verdict")).to_have_text("allowed")
    expect(denied).to_contain_text("The token has expired.")
    expect(denied.locator(".verdict")).to_have_text("denied")
    # Not by colour alone.
    assert page.evaluate("getComputedStyle(document.querySelector('.verdict.denied'), '::before').content") == '"✕"'


def test_filters_leave_what_was_asked_for(open_page: Callable[..., Page], site: Site, new_token: NewToken) -> None:
    page = open_page()
    site.check(new_token(), path="/a.B/Mine")
    site.check(new_token(org_id=OTHER), path="/a.B/Others")
    site.check(None, path="/a.B/Nobodys")
    rows(page).filter(has_text="/a.B/Others").get_by_role("button").click()
    expect(rows(page).filter(has_text="/a.B/Mine")).to_have_count(0)
    expect(page.locator("#organization h3")).to_have_text(OTHER)
    page.get_by_role("button", name="Clear").click()
    page.locator("#filter-verdict").select_option("refused")
    page.get_by_label("Method contains").fill("nobodys")

    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("The request carries no authorization header.")


def test_rule_that_never_decided_stands_out(open_page: Callable[..., Page], site: Site, new_token: NewToken) -> None:
    site.check(new_token())
    page = open_page()
    never = page.locator("#policy-rows tr").filter(has_text="never-called")
    hit = page.locator("#policy-rows tr").filter(has_text="readers")
    declared = page.locator("#policy-rows tr").filter(has_text="proto:/tests.Api/Call")

    expect(never).to_contain_text("never used")
    expect(never).to_have_class("never")
    expect(hit).not_to_contain_text("never used")
    expect(hit).not_to_have_class("never")
    # It speaks of every method, called or not.
    expect(declared).to_contain_text(".proto requires")
    expect(declared).not_to_have_class("never")


def test_suspending_needs_the_secret_and_takes_effect_at_once(
    open_page: Callable[..., Page], site: Site, new_token: NewToken
) -> None:
    site.check(new_token(org_id=OTHER))
    page = open_page()
    page.locator("#organizations").get_by_role("button", name="org_01JYGLO").click()
    page.get_by_role("button", name="Suspend organization").click()
    dialog = page.get_by_role("dialog", name="Suspend this organization?")
    dialog.get_by_label("Admin secret").fill("not-the-secret-at-all")
    dialog.get_by_role("button", name="Suspend").click()
    expect(dialog.get_by_role("alert")).to_have_text("The admin secret is wrong.")
    before = site.check(new_token(org_id=OTHER))
    dialog.get_by_label("Admin secret").fill(SECRET)
    dialog.get_by_role("button", name="Suspend").click()
    expect(page.get_by_role("status")).to_contain_text(f"{OTHER} is suspended")
    after = site.check(new_token(org_id=OTHER))
    page.get_by_role("button", name="Resume", exact=True).click()
    # The secret was typed once, and this page remembers it.
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    expect(page.get_by_role("status")).to_contain_text(f"{OTHER} is resumed")

    assert (before, after, site.check(new_token(org_id=OTHER))) == ([0], [7], [0])
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]


def test_order_is_shown_with_why_who_and_until_when_and_can_be_lifted(
    open_page: Callable[..., Page], site: Site, new_token: NewToken
) -> None:
    page = open_page()
    given, lifted = new_token(client_id="client_shown", sub="client_shown"), page.locator("#orders-empty")
    page.get_by_label("Order", exact=True).select_option("revoke client")
    page.get_by_label("Id", exact=True).fill("client_shown")
    page.get_by_role("button", name="Give").click()
    dialog = page.get_by_role("dialog", name="Revoke this client?")
    dialog.get_by_label("Reason").fill("<b>leaked</b>")
    dialog.get_by_label("Lasts").select_option("for a day")
    dialog.get_by_label("Your name").fill("ann")
    dialog.get_by_label("Admin secret").fill(SECRET)
    dialog.get_by_role("button", name="Revoke").click()
    row = page.locator("#order-rows tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("revoke client")
    expect(row.locator("td").nth(1)).to_have_text("<b>leaked</b>")
    expect(row.locator("td").nth(2)).to_have_text("ann")
    expect(row.locator("td").nth(4)).to_contain_text("-")
    refused = site.check(given)
    page.get_by_role("button", name="Lift: revoke client client_shown").click()
    # Its name and the secret were typed once.
    dialog = page.get_by_role("dialog", name="Reinstate this client?")
    expect(dialog.get_by_label("Lasts")).not_to_be_visible()
    expect(dialog.get_by_label("Your name")).to_have_value("ann")
    dialog.get_by_role("button", name="Reinstate").click()
    expect(lifted).to_be_visible()

    assert (refused, site.check(given)) == ([16], [0])


def test_only_what_was_issued_until_now_is_revoked(
    open_page: Callable[..., Page], site: Site, new_token: NewToken
) -> None:
    page = open_page()
    before = new_token(iat=int(time.time()) - 5)
    page.get_by_label("Order", exact=True).select_option("revoke organization")
    page.get_by_label("Id", exact=True).fill(ORG)
    page.get_by_label("Only tokens issued until now").check()
    page.get_by_role("button", name="Give").click()
    dialog = page.get_by_role("dialog", name="Revoke this organization?")
    dialog.get_by_label("Admin secret").fill(SECRET)
    dialog.get_by_role("button", name="Revoke").click()
    expect(page.locator("#order-rows tr")).to_contain_text("only tokens issued before")
    refused = site.check(before)
    # Issued after the second in which the order was given.
    site.until(lambda: site.check(new_token()) == [0])
    page.get_by_role("button", name=f"Lift: revoke organization {ORG}").click()
    page.get_by_role("dialog").get_by_role("button", name="Reinstate").click()
    expect(page.locator("#orders-empty")).to_be_visible()

    assert refused == [16]


def test_what_only_has_one_of_it_is_revoked_as_a_whole(open_page: Callable[..., Page]) -> None:
    page = open_page()
    earlier = page.get_by_label("Only tokens issued until now")
    expect(earlier).to_be_disabled()
    page.get_by_label("Order", exact=True).select_option("revoke key")
    expect(earlier).to_be_enabled()
    page.get_by_label("Order", exact=True).select_option("revoke token")
    expect(earlier).to_be_disabled()


def test_what_the_policy_suspends_is_not_offered_to_be_resumed(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.locator("#organizations").get_by_role("button", name="org_01JYUMB").click()

    expect(page.locator("#organization")).to_contain_text("Suspended by the policy file, which alone can resume it.")


def test_token_is_explained(open_page: Callable[..., Page], new_token: NewToken) -> None:
    page = open_page()
    page.get_by_label("Method", exact=True).fill("/a.B/Import")
    page.get_by_label("Access token").fill(new_token())
    page.get_by_role("button", name="Explain").click()
    told = page.locator("#explanation")

    expect(told.locator(".verdict")).to_have_text("denied")
    expect(told.locator(".steps li.failed")).to_have_text(re.compile("Rule no-import of deny_rules matches"))
    expect(told.locator("dl")).to_contain_text(ORG)


def test_why_a_token_is_refused_is_explained(open_page: Callable[..., Page], new_token: NewToken) -> None:
    page = open_page()
    page.get_by_label("Method", exact=True).fill("/a.B/Import")
    page.get_by_label("Access token").fill(new_token(aud="<img src=x>"))
    page.get_by_role("button", name="Explain").click()
    told = page.locator("#explanation dl")

    expect(told.locator("dt")).to_have_text(["found", "expected", "setting"])
    expect(told.locator("dd").first).to_have_text('aud is "<img src=x>"')
    expect(told.locator("dd").last).to_have_text("--audience")
    assert page.locator("main img").count() == 0


def test_hostile_name_is_a_text(open_page: Callable[..., Page], site: Site, new_token: NewToken) -> None:
    page = open_page()
    site.check(new_token(), path=HOSTILE)
    site.check(None, path=HOSTILE)
    expect(rows(page).filter(has_text=HOSTILE).first).to_be_visible()

    assert page.locator("main img").count() == 0
    assert page.title() == "authz admin"


def walk(page: Page) -> Iterator[tuple[str, str]]:
    """Press Tab until the page is left again; yield what has the focus each time, and how that shows."""
    for _ in range(500):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => {
                const on = document.activeElement;
                if (on === document.body) return null;
                return [on.id || on.textContent.trim(), getComputedStyle(on).outlineStyle];
            }"""
        )
        if focused is None:
            return
        yield tuple(focused)
    raise AssertionError("the keyboard does not get out of the page again")


def test_keyboard_reaches_everything_and_leaves_it_again(
    open_page: Callable[..., Page], site: Site, new_token: NewToken
) -> None:
    site.check(new_token())
    page = open_page()
    page.locator("#organizations").get_by_role("button", name="org_01JYACM").wait_for()
    reached = list(walk(page))
    page.locator("#organizations .name").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Suspend organization").focus()
    page.keyboard.press("Enter")
    secret = page.get_by_label("Admin secret")
    expect(secret).to_be_focused()
    page.keyboard.press("Escape")

    expect(secret).not_to_be_visible()
    assert reached[0] == ("Skip to the decisions", "solid")
    wanted = {
        "pause",
        "filter-verdict",
        "order-what",
        "order-id",
        "Give order",
        "filter-method",
        "ask-method",
        "ask-token",
        "filter-clear",
        "Explain",
    }
    assert wanted - {name for name, _ in reached} == set()
    assert {outline for _, outline in reached} == {"solid"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_meets_wcag_aa(
    open_page: Callable[..., Page], site: Site, new_token: NewToken, scheme: Literal["light", "dark"]
) -> None:
    site.check(new_token())
    site.check(None)
    site.order("revoke", "client_of_nobody")
    page = open_page(scheme)
    page.locator("#order-rows tr").first.wait_for()
    page.locator("#organizations").get_by_role("button", name="org_01JYACM").click()
    page.get_by_label("Method", exact=True).fill("/a.B/C")
    page.get_by_role("button", name="Explain").click()
    page.locator("#explanation .verdict").wait_for()
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
    with_page = Axe().run(page, options=rules)
    page.get_by_role("button", name="Suspend organization").click()
    # It is not sure of a text whose lines lie over different things, although the dialog hides them.
    page.locator("main").evaluate("on => { on.style.display = 'none'; }")
    with_dialog = Axe().run(page, options=rules)

    site.order("reinstate", "client_of_nobody")

    for result in (with_page, with_dialog):
        assert result.violations_count == 0, result.generate_report()
        assert "color-contrast" in {check["id"] for check in result.response["passes"]}
        # Of a single character it does not know whether it is a text; these have the colours of the verdicts.
        unsure = [node["html"] for check in result.response["incomplete"] for node in check["nodes"]]
        assert [html for html in unsure if 'class="sign"' not in html] == []
