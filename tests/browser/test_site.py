"""The documentation site in a real Chromium: wide and narrow, light and dark, readable, and asking no other server."""

import functools
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.missing import leave_out
from tests.programs import PATIENCE

ROOT = Path(__file__).parents[2]
MKDOCS = ROOT / ".venv-site/bin/mkdocs"
VERSION = "0.1"
# One of each kind: pictures, programs, tabs and wide tables, a generated table, docstrings.
PAGES = ["", "tutorial/", "interceptors/", "settings/", "api/verification/"]
# What the theme itself does beside the standard, such as a landmark for each button that copies, is left to it.
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
SIZES = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 390, "height": 844}}


def build(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    if not MKDOCS.exists():
        leave_out("the documentation site, because there is no MkDocs", "make .venv-site/.ready")
    command = [str(MKDOCS), "build", "--config-file", str(root / "mkdocs.yml"), "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Keep the output of the tests to themselves."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the site as mike publishes it: each version in a folder, beside the list of all."""
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT, folder / VERSION)
    assert built.returncode == 0, built.stderr
    versions = f'[{{"version": "{VERSION}", "title": "{VERSION}", "aliases": ["latest"]}}]'
    (folder / "versions.json").write_text(versions, encoding="utf-8")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{VERSION}/"
        server.shutdown()


@pytest.fixture(params=["wide", "narrow"])
def size(request: pytest.FixtureRequest) -> dict[str, int]:
    return SIZES[request.param]


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Browser, url: str, size: dict[str, int]) -> Iterator[Page]:
    """Return a page that may neither complain nor ask another server."""
    scheme: Literal["light", "dark"] = request.param
    viewport: Any = size
    context = browser.new_context(color_scheme=scheme, reduced_motion="reduce", viewport=viewport)
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    complaints: list[str] = []
    urls: set[str] = set()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: urls.add(request.url))
    yield page
    context.close()
    root = url.removesuffix(f"{VERSION}/")
    assert {asked for asked in urls if not asked.startswith((root, "data:", "blob:"))} == set()
    assert complaints == []


def violations(page: Page) -> list[str]:
    return [
        f"{each['id']}: {each['nodes'][0]['html']}" for each in Axe().run(page, options=WCAG).response["violations"]
    ]


def test_page_fits_and_can_be_read_by_all(page: Page, url: str, size: dict[str, int]) -> None:
    # Colours and sizes do not depend on each other, and each takes long to examine.
    is_light = page.evaluate("matchMedia('(prefers-color-scheme: light)').matches")
    is_examined = is_light == (size == SIZES["wide"])
    found: dict[str, list[str]] = {}
    for name in PAGES:
        page.goto(url + name)
        expect(page.locator("h1")).to_be_visible()
        too_wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        faults = violations(page) if is_examined else []
        if too_wide or faults:
            found[name] = [*faults, *["wider than the window"] * too_wide]

    assert found == {}


def test_search_finds_a_word(page: Page, url: str) -> None:
    page.goto(url)
    if page.locator("label[for=__search]").first.is_visible():
        page.locator("label[for=__search]").first.click()
    # By keys, as a reader does: the theme looks for a word when a key comes up, and misses one that is only filled in
    # if it has read its index before.
    page.get_by_role("textbox", name="Search").press_sequentially("introspection")

    expect(page.locator(".md-search-result__item").first).to_contain_text(re.compile("introspect", re.IGNORECASE))


def test_schemas_are_where_files_say_that_they_are(url: str) -> None:
    for schema in (ROOT / "authz/cli/schemas").glob("*.schema.json"):
        described = json.loads(schema.read_text(encoding="utf-8"))
        assert described["$id"] == f"https://grpc-org-authz.dev/latest/schemas/{schema.name}"
        assert httpx2.get(f"{url}schemas/{schema.name}", trust_env=False).json() == described


def test_page_outside_of_nav_and_lost_link_are_named_and_fail_the_build(tmp_path: Path) -> None:
    for path in ROOT.iterdir():
        if path.name not in {"docs", "mkdocs.yml"}:
            (tmp_path / path.name).symlink_to(path)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "docs/forgotten.md").write_text("# Forgotten\n\n[Policy](policy.md#no-such-heading)\n")

    built = build(tmp_path, tmp_path / "site")

    assert built.returncode == 1
    assert "- forgotten.md" in built.stderr
    assert "'policy.md#no-such-heading'" in built.stderr
