"""One outgoing RPC and the token that it bears; the same for ``grpc`` and ``grpc.aio``."""

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import grpc

from authz.errors import AuthzError, UnauthenticatedError
from authz.issuer.credentials import BearerPlugin, bearer_metadata
from authz.issuer.token_source import TokenSource, replace_token
from authz.runtime import telemetry
from authz.runtime.flow import Flow

Entries = tuple[tuple[str, str | bytes], ...]


def has_authorization(metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
    """Say whether the caller has put an ``authorization`` of its own into ``metadata``."""
    return any(key.lower() == "authorization" for key, _ in metadata or ())


class WatchedSource:
    """A token source, and whether the issuer denied it a token when it was last asked."""

    is_denied = False

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    def token_flow(self) -> Flow[str]:
        """See :class:`authz.issuer.token_source.TokenSource`."""
        try:
            token = yield from self._source.token_flow()
        except UnauthenticatedError:
            self.is_denied = True
            raise
        self.is_denied = False
        return token

    def invalidate(self, token: str) -> None:
        """See :class:`authz.issuer.token_source.TokenSource`."""
        self._source.invalidate(token)


class Attempt(NamedTuple):
    """What differs in one attempt from the details that the caller gave."""

    timeout: float | None
    metadata: Entries | None
    credentials: grpc.CallCredentials | None


class Bearer:
    """An outgoing RPC, of one attempt or two.

    Args:
        source: where its token comes from.
        details: the RPC as its caller wants it.
        insecure_channel: whether the token is plain metadata; by default it is call
            credentials, which gRPC does not send on a channel without TLS.

    """

    def __init__(self, source: WatchedSource, details: Any, *, insecure_channel: bool) -> None:
        self._source, self._details, self._insecure = source, details, insecure_channel
        # gRPC asks the plugin for the token, and the plugin remembers which one went out, if any did.
        self._plugin = BearerPlugin(source)
        self._dropped: str | None = None
        self._ends_at = None if details.timeout is None else time.monotonic() + details.timeout

    def begin(self) -> Flow[None]:
        """Get the token of the first attempt, unless gRPC is to ask for it."""
        # Where gRPC asks a source that is still denied one, it ends the call as UNAVAILABLE, and may repeat it.
        if self._insecure or self._source.is_denied:
            token = yield from self._source.token_flow()
            self._plugin.token = token if self._insecure else None

    def begin_again(self) -> Flow[bool]:
        """Get the token of a second attempt; say whether there is another one, and time left to use it."""
        refused = self._dropped = self._plugin.token or ""
        token = yield from replace_token(self._source, refused)
        if token is None or self.time_remaining() == 0:
            return False
        self._plugin.token = token
        return True

    def attempt(self) -> Attempt:
        """Return what to change in the details of the RPC for the next attempt."""
        metadata, credentials = self._details.metadata, self._details.credentials
        if self._insecure:
            metadata = (*(metadata or ()), *bearer_metadata(self._plugin.token or ""))
        elif credentials is None:
            credentials = self._plugin.credentials()
        else:
            credentials = grpc.composite_call_credentials(credentials, self._plugin.credentials())
        return Attempt(self.time_remaining(), metadata, credentials)

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's deadline, or ``None`` where it has none."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def is_refusal(self, code: grpc.StatusCode | None) -> bool:
        """Say whether ``code`` is a server's refusal of our token; gRPC uses it, too, where it must not send one."""
        return code is grpc.StatusCode.UNAUTHENTICATED and self._plugin.token is not None

    def ended(self, code: grpc.StatusCode | None) -> bool:
        """Drop the token if ``code`` is its refusal, so that the next RPC bears another; say whether it is.

        However often this is called, a token is dropped once.
        """
        if not self.is_refusal(code):
            return False
        token = self._plugin.token or ""
        if token != self._dropped:
            self._dropped = token
            try:
                self._source.invalidate(token)
            except Exception as error:  # noqa: BLE001 - this may be gRPC's own thread, or its loop
                telemetry.unforeseen("token source", error)
        return True

    def denial(self, code: grpc.StatusCode | None) -> UnauthenticatedError | None:
        """Return why the issuer denied us a token, if gRPC has ended the RPC with ``code`` because of that."""
        return self._plugin.denial if code is grpc.StatusCode.UNAVAILABLE else None

    def failure_code(self, error: Exception) -> grpc.StatusCode:
        """Return the status of an RPC for which no token could be had."""
        if self.time_remaining() == 0:
            return grpc.StatusCode.DEADLINE_EXCEEDED
        return grpc.StatusCode[error.code.name] if isinstance(error, AuthzError) else grpc.StatusCode.UNAVAILABLE
