"""What the doors for HTTP in the process of an application have in common: who is asked, and about what."""

from collections.abc import Collection, Mapping

from authz.call.call import Call, check_size
from authz.call.principal import ANONYMOUS, Principal
from authz.decisions.decision import Evidence
from authz.http.headers import Sorting, Telling, as_bytes
from authz.http.isolation import RequestIsolation
from authz.http.paths import check_paths
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers
from authz.judge.authorizer import Authorizer, as_authorizer
from authz.judge.hearing import Hearing
from authz.judge.streams import Stream, StreamExpiry, StreamRules
from authz.runtime.flow import Flow

Judge = Authorizer | Verifier | Verifiers

_PREFLIGHT = {"origin", "access-control-request-method"}


class HttpDoor:
    """The judge of one application, and what that application asks of it.

    Args:
        judge: decides.
        public_paths: paths that need no token, in addition to the judge's own public methods; compared exactly.
        preflights: whether ``OPTIONS`` requests by which browsers ask for permission (CORS) need no token.
        isolation: checks which organization the gRPC messages in bodies name.
        stream_expiry: ``token`` ends a response that is being streamed, and a WebSocket, when the token expires;
            ``never`` does not; or one of them by path, where ``*`` stands for all other paths.
        grace: seconds that it may go on after its token has expired.

    Attributes:
        authorizer: the judge.
        sorting: looks through the headers of requests.
        telling: makes the headers that tell handlers who calls.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(
        self,
        judge: Judge,
        *,
        public_paths: Collection[str] = (),
        preflights: bool = False,
        isolation: RequestIsolation | None = None,
        stream_expiry: StreamExpiry | Mapping[str, StreamExpiry] = "token",
        grace: float = 0.0,
    ) -> None:
        self.authorizer = as_authorizer(judge)
        self.sorting, self.telling = Sorting(self.authorizer.trusted), Telling(self.authorizer.trusted, as_bytes)
        self._public = check_paths(public_paths, "public_paths")
        self._preflights = preflights
        self._rules = StreamRules(stream_expiry, grace)
        if isolation is not None:
            self.authorizer.in_force.replace(self.authorizer.policy, isolation)

    def verdict(self, hearing: Hearing) -> Flow[Principal]:
        """Return the flow that returns who makes the request of ``hearing``.

        It raises an :class:`authz.errors.AuthzError` if the request may not be made, or there can be no verdict now.
        """
        call = hearing.call
        is_public = call.method in self._public or (self._preflights and is_preflight(call))
        if is_public and call.requirements is None:
            return self._public_verdict(call, hearing.evidence)
        return hearing.verdict()

    def _public_verdict(self, call: Call, evidence: Evidence) -> Flow[Principal]:
        yield from ()
        check_size(call)
        _, evidence.isolation, _ = evidence.in_force = self.authorizer.in_force.now
        evidence.source = "public"
        return ANONYMOUS

    def open(self, stream: Stream, hearing: Hearing, principal: Principal) -> Flow[None] | None:
        """Take in a response that is being streamed, or a WebSocket, and end it when it must end.

        Returns:
            ``None`` where that is done; otherwise the flow that does it.

        Raises:
            ResourceExhaustedError: the organization has as many streams open as it may.
            UnavailableError: that cannot be said now.

        """
        call = hearing.call
        until = self._rules.until(call.method, self.authorizer.verifier.ends_at(principal))
        return self.authorizer.endings.open(stream, principal, until, call)

    def close(self, stream: Stream) -> None:
        """Forget a stream that is over."""
        self.authorizer.streams.close(stream)


def is_preflight(call: Call) -> bool:
    """Say whether a browser asks with a request whether it may make another (Fetch, "CORS-preflight request")."""
    if call.verb != "OPTIONS":
        return False
    return {name for name, _ in call.metadata} >= _PREFLIGHT
