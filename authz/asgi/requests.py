"""A request as ASGI describes it, read into the call that it is; and what its handler is told."""

from typing import NamedTuple

from authz.asgi.protocol import Scope
from authz.call.call import Call
from authz.call.metadata import TrustedMetadata
from authz.call.peer import Peer
from authz.call.principal import Principal
from authz.errors import PermissionDeniedError
from authz.http.forms import Form
from authz.http.headers import RawHeaders, Sorted, trusted_headers
from authz.http.paths import path_of
from authz.judge.hearing import Hearing

_PLAIN, _OVER_TLS = Peer(), Peer(principals=("",))


class Admission(NamedTuple):
    """A request that was admitted.

    Attributes:
        hearing: its hearing.
        principal: who makes it.
        form: how a refusal is written, by the protocol that its caller speaks.
        seconds: how long the decision took.

    """

    hearing: Hearing
    principal: Principal
    form: Form
    seconds: float


class Reading(NamedTuple):
    """A request, read.

    Attributes:
        call: the call that it is.
        fault: why it cannot be allowed, whoever makes it; known before the caller is.

    """

    call: Call
    fault: PermissionDeniedError | None

    def check(self) -> None:
        """Check that the request may be allowed to the caller who is known now.

        Raises:
            PermissionDeniedError: it may be allowed to none.

        """
        if self.fault is not None:
            raise self.fault


def read(scope: Scope, headers: Sorted) -> Reading:
    """Return the call that a request is; its method is the path that is routed, in the one spelling that rules compare.

    Args:
        scope: of ``http`` or ``websocket``; a handshake of the latter is a ``GET`` (RFC 6455 section 4.1), and over
            HTTP/2 it stands for one (RFC 8441).
        headers: those of the scope.

    """
    path, fault = scope["path"], None
    try:
        path = path_of(path)
    except PermissionDeniedError as error:
        # The caller learns it only once it is known: an anonymous one is told that a token is needed.
        fault = error
    call = Call(
        method=path,
        metadata=RawHeaders(scope["headers"]),
        peer=_peer_of(scope),
        credentials=headers.credentials,
        size=headers.size,
        verb=scope.get("method", "GET"),
    )
    return Reading(call, fault)


def _peer_of(scope: Scope) -> Peer | None:
    tls = (scope.get("extensions") or {}).get("tls")
    if tls is None:
        # Over TLS without a word about certificates: a rule that depends on one has no verdict.
        return _PLAIN if scope.get("scheme", "http") in ("http", "ws") else None
    # ASGI TLS extension: an error says that the server could not verify what it hands on.
    chain = tls.get("client_cert_chain")
    if not chain or tls.get("client_cert_error") is not None:
        return _OVER_TLS
    return Peer.of("", {"x509_pem_cert": (chain[0].encode("ascii"),)})


def tell_handlers(scope: Scope, headers: Sorted, trusted: TrustedMetadata, admission: Admission) -> None:
    """Tell the handlers of a request who makes it: in the scope itself, which outer middleware may keep and read.

    Args:
        scope: the request.
        headers: those that its caller has sent.
        trusted: under which names a handler finds the caller.
        admission: what has been found out.

    """
    hearing, principal = admission.hearing, admission.principal
    scope["headers"] = [*headers.kept, *trusted_headers(trusted, principal)]
    # Copied: a server may give every request the same one.
    scope["state"] = {
        **(scope.get("state") or {}),
        "principal": principal,
        "organization": hearing.evidence.organization,
    }
