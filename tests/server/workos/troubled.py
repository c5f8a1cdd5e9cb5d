"""A development issuer whose API fails as the test says, and the events that happen in it."""

import json
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authz.demo.issuer.directory import DEFAULT_API_KEY, Directory, Organization
from authz.demo.issuer.program import Issuer, IssuerServer
from authz.demo.issuer.signing import SigningKey
from authz.runtime.network.transport import Transport
from authz.server.workos.api import EventsApi
from tests.doubles import ManualClock

Trouble = Callable[[], "str | bytes"]
"""Says what the next question gets: ``""`` for its answer, a status with perhaps ``Retry-After`` such as ``429 7``,
``slow`` for none, ``lost`` for the answer cut off, ``again`` for the answer to the question before; or this body."""


class TroubledIssuer(IssuerServer):
    """A real development issuer, and before it a proxy that fails.

    Args:
        key: signs its tokens.
        clock: tells when events happen.
        trouble: says how questions for events fail.

    Attributes:
        asked: the queries of all questions for events.

    """

    def __init__(self, key: SigningKey, clock: ManualClock, trouble: Trouble = lambda: "") -> None:
        directory = Directory(audience="client_1", organizations=())
        super().__init__(Issuer(directory=directory, keys=[key], clock=lambda: clock.now))
        self.environment, self._clock, self.trouble = self.issuer.environment, clock, trouble
        self.asked: list[str] = []
        self._number = 0

    def organization(self) -> str:
        """Add an organization, and return its id."""
        self._number += 1
        org_id = f"org_{self._number:026d}"
        self._clock.advance(0.01)
        self.environment.create_organization(Organization(id=org_id, name=f"{self._number}", applications=()))
        return org_id

    def update(self, org_id: str) -> None:
        self._clock.advance(0.01)
        self.environment.update_organization(org_id, {"name": "other"})

    def delete(self, org_id: str) -> None:
        self._clock.advance(0.01)
        self.environment.delete_organization(org_id)

    def api(self, *, timeout: float = 5.0, max_bytes: int = 4 * 1024 * 1024) -> EventsApi:
        return EventsApi(DEFAULT_API_KEY, self.url, Transport(timeout=timeout, max_bytes=max_bytes))

    def _counting(self, application: ASGIApp) -> ASGIApp:
        whole = super()._counting(application)
        before: list[Message] = []

        async def troubled(scope: Scope, receive: Receive, send: Send) -> None:
            if scope.get("path") != "/events":
                await whole(scope, receive, send)
                return
            self.asked.append(scope["query_string"].decode())
            trouble = self.trouble()
            if trouble == "slow":
                while (await receive())["type"] != "http.disconnect":
                    pass
            elif trouble == "again" and before:
                for message in before:
                    await send(message)
            elif isinstance(trouble, str) and trouble not in ("", "again", "lost"):
                status, _, after = trouble.partition(" ")
                headers = [(b"retry-after", after.encode())] if after else []
                await send({"type": "http.response.start", "status": int(status), "headers": headers})
                await send({"type": "http.response.body", "body": b'{"message": "no"}'})
            else:
                before.clear()
                await whole(scope, receive, _sending(send, before, trouble))

        return troubled


def _sending(send: Send, kept: list[Message], trouble: str | bytes) -> Send:
    async def sending(message: Message) -> None:
        kept.append(message)
        if isinstance(trouble, bytes):
            if message["type"] == "http.response.start":
                message = {**message, "status": 200, "headers": [(b"content-type", b"application/json")]}
            else:
                message = {**message, "body": trouble}
        elif trouble == "lost" and message["type"] == "http.response.body":
            message = {**message, "body": message["body"][: len(message["body"]) // 2], "more_body": True}
            await send(message)
            raise ConnectionResetError
        await send(message)

    return sending


def body(*events: Any, after: str | None = None) -> bytes:
    """Return a page as WorkOS sends it."""
    return json.dumps({"object": "list", "data": events, "list_metadata": {"before": None, "after": after}}).encode()
