"""Constant load through Envoy, and what came of it."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Self

import httpx2

PATIENCE = 120.0
"""Seconds after which something that must happen counts as never happening."""


class Load:
    """Clients that ask one after the other without a pause; a context manager.

    Args:
        url: what they ask for.
        token: gives the token of each request.
        clients: how many.

    Attributes:
        clients: as above.
        counts: answers by HTTP status, or by the error of those that got none.

    """

    def __init__(self, url: str, token: Callable[[], str], clients: int = 8) -> None:
        self._url, self._token = url, token
        self.clients = clients
        self.counts: Counter[str] = Counter()
        self._is_over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()), name="load")

    @property
    def failures(self) -> int:
        return self.counts.total() - self.counts["200"]

    def more(self, requests: int) -> None:
        """Return when that many more have been allowed."""
        self.until(lambda wanted=self.counts["200"] + requests: self.counts["200"] >= wanted)

    def until(self, condition: Callable[[], object]) -> None:
        """Return when ``condition`` holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"it never came to that: {dict(self.counts)}"
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()

    async def _ask(self) -> None:
        async with httpx2.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            await asyncio.gather(*[self._ask_on(client) for _ in range(self.clients)])

    async def _ask_on(self, client: httpx2.AsyncClient) -> None:
        while not self._is_over:
            try:
                answer = await client.get(self._url, headers={"authorization": f"Bearer {self._token()}"})
                self.counts[str(answer.status_code)] += 1
            except httpx2.HTTPError as error:
                self.counts[type(error).__name__] += 1
