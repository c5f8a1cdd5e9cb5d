from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.chromium import ARGUMENTS, path_of_chromium
from tests.missing import leave_out


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = path_of_chromium()
    if path is None:
        leave_out("the admin page and CORS in a browser, because there is no Chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()
