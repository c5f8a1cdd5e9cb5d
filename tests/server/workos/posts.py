"""The port for webhooks on a thread of its own, and those who post to it: WorkOS, and others."""

import asyncio
import hashlib
import hmac
import threading
from collections.abc import Callable, Iterable
from typing import Self

import httpx2

from authz.runtime.clock import Clock
from authz.server.workos.webhooks import PATH, Webhooks, receiving
from tests.doubles import PATIENCE

SECRET = "whsec_0123456789abcdef"


def signature(body: bytes, at: float, secret: str = SECRET) -> str:
    """Return the header that WorkOS sends."""
    milliseconds = f"{round(at * 1000):013d}"
    digest = hmac.new(secret.encode(), milliseconds.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={milliseconds}, v1={digest}"


class Port:
    """Takes webhooks on a free port of loopback; a context manager.

    Args:
        clock: tells the time.
        nudge: is called for each that was signed.
        secrets: those that may have signed.

    """

    def __init__(
        self, clock: Clock, nudge: Callable[[], object] = lambda: None, secrets: tuple[str, ...] = (SECRET,)
    ) -> None:
        self.webhooks = Webhooks(secrets, nudge, clock=clock)
        self._listening, self._thread = threading.Event(), threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._client = httpx2.Client(trust_env=False, timeout=PATIENCE)

    @property
    def url(self) -> str:
        return f"http://{self._address}{PATH}"

    def post(self, body: bytes | Iterable[bytes], *headers: str, method: str = "POST", path: str = "") -> int:
        """Post a body with these signatures, and return the status of the answer, which never says more."""
        named = [("workos-signature", each) for each in headers]
        response = self._client.request(method, self.url + path, content=body, headers=named)
        assert path or method != "POST" or response.content == b""
        return response.status_code

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(PATIENCE)

    async def _serve(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        async with receiving(self.webhooks, "127.0.0.1:0") as self._address:
            self._listening.set()
            await self._ending.wait()
