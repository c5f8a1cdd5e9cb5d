"""Webhooks of the development issuer: each event is posted to one address, signed as WorkOS signs it.

WorkOS posts again what was not taken, for days; here each event is posted once, and the API has it still.
"""

import contextlib
import hashlib
import hmac
import json
import queue
import threading
import time
from collections.abc import Callable

import httpx2

from authz.demo.issuer.environment import Environment
from authz.demo.issuer.events import Event
from authz.demo.issuer.workos_api import event_json
from authz.runtime.network.urls import check_url

_TIMEOUT_SECONDS = 5.0


class Webhooks:
    """Posts what happens in an environment, on a thread, from ``start`` to ``stop``.

    Args:
        environment: what happens, and the secret to sign with.
        url: where to post it.
        clock: POSIX time in seconds.

    Raises:
        ConfigError: the URL is none, or would send events over a network without TLS.

    """

    def __init__(self, environment: Environment, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._environment, self._url, self._clock = environment, check_url(url, "webhooks"), clock
        self._happened: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        environment.watch(self._happened.put)

    def start(self) -> None:
        """Begin to post what happens."""
        self._thread = threading.Thread(target=self._post_all, name="development-webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Post what has happened, and nothing more."""
        if self._thread is not None:
            self._happened.put(None)
            self._thread.join()
            self._thread = None

    def _post_all(self) -> None:
        with httpx2.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            while (event := self._happened.get()) is not None:
                body = json.dumps(event_json(event)).encode()
                headers = {"content-type": "application/json", "workos-signature": self._signature(body)}
                with contextlib.suppress(httpx2.HTTPError):
                    client.post(self._url, content=body, headers=headers)

    def _signature(self, body: bytes) -> str:
        at = f"{round(self._clock() * 1000):013d}"
        secret = self._environment.directory.webhook_secret.encode()
        return f"t={at}, v1={hmac.new(secret, f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"
