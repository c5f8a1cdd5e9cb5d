"""A server with an admin page, and somebody who calls it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx2

from tests.doubles import AUDIENCE, ISSUER, eventually
from tests.envoy.check.messages import GRPC, bearer, in_headers
from tests.programs import PATIENCE, Program
from tests.server.serving.serving import LOOPBACK, ask

SECRET = "a-secret-of-the-operator"
SERVE = ("serve", "--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--log-format", "json")


class Site:
    """A server with a page; a context manager.

    Args:
        folder: where it runs.
        flags: its other flags.

    """

    def __init__(self, folder: Path, *flags: str) -> None:
        listen = ("--listen", f"unix:{folder}/a.sock", "--admin", LOOPBACK)
        self.program = Program(*SERVE, "--jwks", "jwks.json", *listen, *flags, folder=folder, AUTHZ_ADMIN_SECRET=SECRET)

    def __enter__(self) -> Self:
        try:
            address = self.program.await_event("admin")["address"]
            self.url = f"http://{address}"
            self.page = httpx2.Client(base_url=self.url, trust_env=False, timeout=PATIENCE)
            self.addresses: list[str] = self.program.await_event("listening")["addresses"]
        except BaseException:
            self.program.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()
        self.program.end()

    def check(self, token: str | None, *addresses: str, path: str = "/a.B/C") -> list[int]:
        """Return the codes of the answers to one check at each address."""
        question = in_headers(GRPC, *([] if token is None else [bearer(token)]), path=path)
        return [ask(address, question, wait_for_ready=True) for address in addresses or self.addresses]

    def get(self, what: str) -> Any:
        return self.page.get(f"/api/{what}").json()

    def order(self, verb: str, name: str) -> Any:
        answer = self.page.post(
            "/api/orders", json={"verb": verb, "id": name}, headers={"authorization": f"Bearer {SECRET}"}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def until(self, condition: Callable[[], object]) -> None:
        try:
            eventually(condition, 0.05)
        except AssertionError as error:
            self.program.end()
            raise AssertionError(self.program.text) from error
