"""A server that follows a development issuer as it would WorkOS, and has an admin page."""

import json
from pathlib import Path
from typing import Any

from authz.demo.issuer.program import IssuerServer
from tests.server.admin.site import Site


class Replica(Site):
    """A server that follows WorkOS; a context manager."""

    def __init__(self, folder: Path, issuer: IssuerServer, *flags: str, interval: str = "0.5") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        (folder / "jwks.json").write_text(json.dumps(issuer.issuer.jwks()))
        (folder / "key").write_text(issuer.issuer.directory.api_key)
        workos = ("--workos-events", "--workos-base-url", issuer.address, "--workos-api-key-file", "key")
        super().__init__(folder, *workos, "--workos-events-interval", interval, *flags)

    def orders(self) -> list[Any]:
        told: list[Any] = self.get("overview")["orders"]
        return [(each["verb"], each["id"], each["source"], each["reason"]) for each in told]
