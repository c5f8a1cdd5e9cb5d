"""One address of an issuer, what asks it, and how a client authenticates there (RFC 6749 section 2.3.1)."""

import base64
from collections.abc import Mapping
from concurrent.futures import Future
from typing import get_args
from urllib.parse import quote_plus

from authz.errors import ConfigError
from authz.runtime.network.transport import Form, HttpResponse, Transport
from authz.settings.variables import AuthMethod


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


def check_auth_method(method: str) -> None:
    """Check that ``method`` is an :data:`authz.settings.variables.AuthMethod`.

    Raises:
        ConfigError: it is not.

    """
    if method not in get_args(AuthMethod):
        raise ConfigError(f"auth_method: {method!a} must be {' or '.join(get_args(AuthMethod))}")


def authenticated(form: Form, method: AuthMethod, client_id: str, secret: str) -> tuple[Form, dict[str, str]]:
    """Return the form and the headers that send ``form`` on behalf of a client.

    Args:
        form: the fields of the request itself.
        method: whether the secret goes into the form or into a header.
        client_id: the client.
        secret: its secret.

    """
    if method == "client_secret_post":
        return {**form, "client_id": client_id, "client_secret": secret}, {}
    # Form-encoded first, then Basic.
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return form, {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
