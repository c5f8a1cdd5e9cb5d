"""Bearer tokens as gRPC's call credentials, which gRPC itself keeps off channels without TLS."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from authz.errors import AuthzError, UnauthenticatedError
from authz.issuer.token_source import TokenSource
from authz.runtime import telemetry
from authz.runtime.flow import start

if TYPE_CHECKING:
    import grpc

_Metadata = tuple[tuple[str, str], ...]
_Callback = Callable[[_Metadata, Exception | None], None]


def call_credentials(source: TokenSource) -> "grpc.CallCredentials":
    """Return credentials that give every call a token of ``source``; for ``grpc`` and ``grpc.aio`` alike.

    gRPC sends them over TLS and ``grpc.local_channel_credentials()``; on other channels a call ends with
    UNAUTHENTICATED, or ``grpc.aio`` raises ``UsageError``, before a token is asked for.
    Without a token gRPC ends a call with UNAVAILABLE, and the details tell the reason;
    ``bearer_interceptors`` make it UNAUTHENTICATED if the issuer has refused one.
    A token that a server refuses is not replaced: that takes ``bearer_interceptors``.

    Args:
        source: where the tokens come from.

    """
    return BearerPlugin(source).credentials()


class BearerPlugin:
    """An authentication plugin of gRPC that never blocks the thread it runs on.

    ``token`` is the last it gave, ``denial`` what the issuer said if it gave none since.
    """

    token: str | None = None
    denial: UnauthenticatedError | None = None

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    def credentials(self) -> "grpc.CallCredentials":
        """Return the plugin as gRPC wants it."""
        # Late, so that a program that only verifies tokens needs no grpc.
        import grpc  # noqa: PLC0415

        plugin: Any = self
        return grpc.metadata_call_credentials(plugin, "authz")

    def __call__(self, _context: Any, callback: _Callback) -> None:
        """See ``grpc.AuthMetadataPlugin``."""
        start(self._source.token_flow(), partial(self._give, callback))

    def _give(self, callback: _Callback, token: str | None, error: BaseException | None) -> None:
        self.denial = error if isinstance(error, UnauthenticatedError) else None
        if token is not None:
            self.token = token
            callback(bearer_metadata(token), None)
        else:
            callback((), unavailable(error))


def bearer_metadata(token: str) -> _Metadata:
    """Return ``token`` as RFC 6750 section 2.1 sends it."""
    return (("authorization", f"Bearer {token}"),)


def unavailable(error: BaseException | None) -> Exception:
    """Return why there is no token, as the caller of an RPC may read it."""
    if isinstance(error, AuthzError):
        return error
    if error is not None:
        telemetry.unforeseen("token source", error)
    return RuntimeError("the token source failed")
