import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.chromium import ARGUMENTS, path_of_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = path_of_chromium()
    if path is None and os.environ.get("CI") != "true":
        pytest.skip("there is no Chromium here: apt-get install chromium; CI has one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path or "/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        browser.close()
