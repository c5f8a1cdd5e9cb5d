"""The Chromium of this machine; none is ever downloaded."""

import shutil

# Nothing that it would ask of the network by itself, and no sandbox, which root cannot have.
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]


def path_of_chromium() -> str | None:
    """Return where it is, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
