"""One address of an issuer, and what asks it."""

from collections.abc import Mapping
from concurrent.futures import Future

from authz.runtime.network.transport import Form, HttpResponse, Transport


class Endpoint:
    """Ask one URL.

    Args:
        url: an address that :func:`authz.runtime.network.urls.check_url` accepts.
        transport: what asks it.

    """

    def __init__(self, url: str, transport: Transport) -> None:
        self._url = url
        self._transport = transport

    @property
    def url(self) -> str:
        """What to call it in a message."""
        return self._url

    def fetch(
        self, method: str, *, form: Form | None = None, headers: Mapping[str, str] | None = None
    ) -> "Future[HttpResponse]":
        """Start one request; see :meth:`authz.runtime.network.transport.Transport.fetch`."""
        return self._transport.fetch(method, self._url, form=form, headers=headers)

    def close(self) -> None:
        """End the requests that are under way."""
        self._transport.close()
