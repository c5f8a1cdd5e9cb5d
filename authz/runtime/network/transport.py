"""HTTP to the issuer: the only module that opens a connection.

One daemon thread with an event loop, started by the first request, serves
threads and tasks alike: a request is a ``concurrent.futures.Future``.
Every request has one deadline for all of it, including name resolution, the
handshake and a slow body; timeouts of blocking clients cannot give that.
"""

import asyncio
import contextlib
import ssl
import threading
import time
import weakref
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from authz.runtime import fork, telemetry
from authz.runtime.network import connecting

if TYPE_CHECKING:
    import httpx2

_HEADERS = {
    "accept": "application/json",
    # Some servers compress in spite of this.
    "accept-encoding": "identity",
    "user-agent": "grpc-org-authz",
}


# zlib's number for a stream with a gzip header.
_GZIP = 16 + zlib.MAX_WBITS


MAX_BYTES = 262_144
"""The largest body that is read, if it is not said otherwise."""

_UNANSWERED = frozenset({"timeout", "protocol", "proxy", *connecting.CAUSES})

_MAX_DATE = 40

Form = Mapping[str, str | Sequence[str]]


class TransportError(Exception):
    """A request got no response.

    ``reason`` is one word for each cause with a remedy of its own:

    - those that :func:`authz.runtime.network.connecting.cause_of` returns: the connection failed.
    - ``proxy``: the proxy of the environment does not let the request through.
    - ``timeout``: the whole answer did not come in time.
    - ``redirect``: the server redirects the request, which is never followed.
    - ``too_large``: the body is larger than allowed.
    - ``encoding``: the compression of the body is unknown or broken.
    - ``protocol``: the answer is not HTTP, or is cut off.
    - ``closed``: the thread of this client has died.
    - ``exhausted``: this process has no thread or file descriptor left.

    ``is_outage`` if the server was not reached, or did not complete its answer. The last two causes say nothing about
    the server.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.is_outage = reason in _UNANSWERED
        super().__init__(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """A complete response; header names are in lower case, and ``received_at`` is in POSIX seconds."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    received_at: float = field(default_factory=time.time, compare=False, repr=False)

    @property
    def date(self) -> float | None:
        """The time of the answer by the server's clock (RFC 9110 section 6.6.1), in POSIX seconds."""
        return _date(self.headers.get("date", ""))

    @property
    def retry_after(self) -> float:
        """The seconds that ``Retry-After`` asks for (RFC 9110 section 10.2.3); 0 if it asks for none."""
        value = self.headers.get("retry-after", "")
        if value.isascii() and value.isdecimal():
            return float(value)
        date = _date(value)
        # By the server's own clock, if it sends one, so that ours need not agree with it.
        return 0.0 if date is None else max(0.0, date - (self.date or self.received_at))


def _date(value: str) -> float | None:
    # Late, for programs that only fetch tokens; what answers requests has loaded both.
    from datetime import UTC  # noqa: PLC0415
    from email.utils import parsedate_to_datetime  # noqa: PLC0415

    # RFC 9110 section 5.6.7: three forms, all in UTC, which one of them does not say.
    try:
        date = parsedate_to_datetime(value[:_MAX_DATE])
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class Transport:
    """An HTTP client that answers with futures.

    It never follows redirects, and uses proxies of the environment only if asked:
    keys and secrets go to the configured address or nowhere.

    Args:
        timeout: seconds for one whole request.
        max_bytes: the largest body that is read.
        ca_file: PEM file of the CAs to trust instead of the system's; by default what ``SSL_CERT_FILE`` and
            ``SSL_CERT_DIR`` name, as for OpenSSL.
        trust_env: send https requests through the proxy that ``HTTPS_PROXY`` or ``ALL_PROXY`` names, except for
            the hosts of ``NO_PROXY``.

    Raises:
        ConfigError: ``ca_file`` cannot be read; or gevent or eventlet has replaced what the thread needs.

    """

    def __init__(
        self,
        *,
        timeout: float = 5.0,
        max_bytes: int = MAX_BYTES,
        ca_file: str | None = None,
        trust_env: bool = False,
    ) -> None:
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._trust_env = trust_env
        self._tls = connecting.authorities(ca_file)
        connecting.check_threads_are_real()
        self._worker: _Worker | None = None
        self._stop: weakref.finalize[Any, Any] | None = None
        self.after_fork()
        fork.register(self)

    def fetch(
        self, method: str, url: str, *, form: Form | None = None, headers: Mapping[str, str] | None = None
    ) -> "Future[HttpResponse]":
        """Start one request.

        Args:
            method: ``GET`` or ``POST``.
            url: a URL that :func:`check_url` accepts.
            form: fields of an ``application/x-www-form-urlencoded`` body, some perhaps given several times.
            headers: more headers.

        Returns:
            A future of the response, of any status except a redirect, or of a :class:`TransportError`.

        """
        with self._lock:
            try:
                if self._worker is not None and not self._worker.is_alive:
                    # Whatever ended the thread, later requests must not fail for it.
                    telemetry.event(telemetry.ERROR, "transport_thread_died")
                    self._forget()
                if self._worker is None:
                    self._worker = _Worker(
                        tls=self._tls, trust_env=self._trust_env, timeout=self._timeout, max_bytes=self._max_bytes
                    )
                    # Also at interpreter exit, and if close() is never called.
                    self._stop = weakref.finalize(self, self._worker.stop)
                # Inside the lock: close() must find the request on the loop, or a later request must start a loop.
                return self._worker.submit(method, url, form=form, headers=headers)
            except (OSError, RuntimeError):
                # No loop or thread can be started: there are too many, or the interpreter ends.
                failed: Future[HttpResponse] = Future()
                failed.set_exception(TransportError("exhausted"))
                return failed

    def close(self) -> None:
        """End what is under way and stop the thread; a later request starts another."""
        with self._lock:
            stop = self._stop
            self._worker = self._stop = None
        if stop is not None:
            # Outside the lock: a callback on the thread may begin another request, which takes the lock.
            stop()

    def after_fork(self) -> None:
        """Forget the thread, which is the parent's."""
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._worker = None
        if self._stop is not None:
            self._stop.detach()
            self._stop = None


class _Worker:
    """The thread, its loop and its client."""

    def __init__(self, *, tls: ssl.SSLContext | bool, trust_env: bool, timeout: float, max_bytes: int) -> None:
        self._tls, self._trust_env = tls, trust_env
        self._timeout, self._max_bytes = timeout, max_bytes
        self._client: httpx2.AsyncClient | None = None
        self._waiting: set[Future[HttpResponse]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="authz-transport", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(
        self, method: str, url: str, *, form: Form | None, headers: Mapping[str, str] | None
    ) -> "Future[HttpResponse]":
        request = self._request(method, url, form, headers)
        try:
            future = asyncio.run_coroutine_threadsafe(request, self._loop)
        except RuntimeError:
            request.close()
            raise
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._finish())
        except BaseException as error:  # noqa: BLE001 - logged below, and the next request starts another thread
            telemetry.unforeseen("transport", error)
        finally:
            self._loop.close()
            # All who share a request would wait for ever, and it would never be sent again.
            for future in list(self._waiting):
                with contextlib.suppress(InvalidStateError):
                    future.set_exception(TransportError("closed"))

    async def _finish(self) -> None:
        # Only the requests, which end their own tasks: a task that is cancelled before its first step
        # leaves a coroutine that was never awaited.
        requests = [task for task in asyncio.all_tasks() if _is_request(task)]
        for task in requests:
            task.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _request(
        self, method: str, url: str, form: Form | None, headers: Mapping[str, str] | None
    ) -> HttpResponse:
        # Takes 60 ms to load, which a server with a static key set does not pay.
        from http.cookiejar import CookieJar, DefaultCookiePolicy  # noqa: PLC0415

        import httpx2  # noqa: PLC0415

        if self._client is None:
            try:
                self._client = httpx2.AsyncClient(
                    verify=self._tls,
                    trust_env=self._trust_env,
                    # Plain http is only for this machine: a proxy must not see it.
                    mounts={"http://": None},
                    follow_redirects=False,
                    timeout=None,
                    headers=_HEADERS,
                    # Cookies are never needed, so none is kept.
                    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                )
            except (ImportError, ValueError, httpx2.InvalidURL):
                # The environment names a proxy of an unknown kind.
                raise TransportError("proxy") from None
        data = dict(form) if form is not None else None
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream(method, url, data=data, headers=headers) as response,
            ):
                if response.is_redirect:
                    raise TransportError("redirect")
                body = await _body(response, self._max_bytes)
                return HttpResponse(status=response.status_code, headers=dict(response.headers), body=body)
        except TimeoutError:
            raise TransportError("timeout") from None
        except (httpx2.ConnectError, httpx2.ProxyError) as error:
            if not connecting.has_descriptor():
                raise TransportError("exhausted") from None
            is_proxy = isinstance(error, httpx2.ProxyError)
            cause = "proxy" if is_proxy else connecting.cause_of(error)
            # With a proxy, TLS errors are the server's; other failures of the connection are the proxy's.
            is_of_server = cause in ("certificate", "tls") or not (self._trust_env and connecting.has_proxy(url))
            raise TransportError(cause if is_of_server else "proxy") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, OSError):
            raise TransportError("protocol") from None


def _is_request(task: "asyncio.Task[Any]") -> bool:
    return getattr(task.get_coro(), "cr_code", None) is _Worker._request.__code__  # noqa: SLF001 - a class of this module


async def _body(response: "httpx2.Response", max_bytes: int) -> bytes:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise TransportError("encoding")
    unpacker = zlib.decompressobj(_GZIP) if "gzip" in encoding else None
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk if unpacker is None else _unpacked(unpacker, chunk, max_bytes + 1 - len(body))
        if len(body) > max_bytes:
            raise TransportError("too_large")
    if unpacker is not None and (not unpacker.eof or unpacker.unused_data):
        raise TransportError("encoding")
    return bytes(body)


def _unpacked(unpacker: "zlib._Decompress", chunk: bytes, at_most: int) -> bytes:
    try:
        # Bounded here, not afterwards: a kilobyte may unpack to a megabyte.
        return unpacker.decompress(chunk, at_most)
    except zlib.error:
        raise TransportError("encoding") from None
