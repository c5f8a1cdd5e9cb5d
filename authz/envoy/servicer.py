"""Envoy's ``Check``, whatever serves it: bytes in, bytes out."""

from collections.abc import Callable, Sequence
from time import perf_counter

from authz import telemetry
from authz.authorizer import Authorizer
from authz.call import Call
from authz.decision import Decision, Evidence
from authz.envoy import check
from authz.errors import InternalError
from authz.flow import Flow, arun
from authz.refusal import Challenge, Refusal, refusal_of

SERVICE = "envoy.service.auth.v3.Authorization"

_LAST_WORD = check.denied(refusal_of(InternalError(), Challenge()), grpc=True)

Observer = Callable[[Decision], None]
"""Is told of every decision before it is answered, so it must not wait for anything."""


class AuthorizationServicer:
    """Answer Envoy's ``Check``; the messages are ours, the wire is the same.

    Args:
        authorizer: the judge.
        remove_authorization: whether Envoy keeps the token from the upstream.
        jwt_authn_payload: the ``payload_in_metadata`` of Envoy's filter jwt_authn, whose word is then taken for
            the signature of a token that the request no longer carries. Every rule about claims still applies.
            Whoever else reaches the server could write anything there, though all that it gets is a verdict:
            only Envoy may reach it. Empty to believe nothing of the kind.
        observers: who is told of every decision.

    """

    def __init__(
        self,
        authorizer: Authorizer,
        *,
        remove_authorization: bool = False,
        jwt_authn_payload: str = "",
        observers: Sequence[Observer] = (),
    ) -> None:
        self._authorizer = authorizer
        self._remove_authorization = remove_authorization
        self._jwt_authn_payload = jwt_authn_payload
        self._observers = tuple(observers)

    async def check(self, body: bytes, _context: object) -> bytes:
        """Return the answer, as a handler of ``grpc.aio``; see :meth:`check_flow`."""
        try:
            return await arun(self.check_flow(body))
        except (Exception, GeneratorExit) as error:  # noqa: BLE001 - see check_flow
            # Our log is out of order, or a rule has raised GeneratorExit: whoever closes a flow does not see it again.
            return self.unforeseen(error)

    def check_flow(self, body: bytes) -> Flow[bytes]:
        """Return a serialized ``CheckResponse`` for a serialized ``CheckRequest``, whatever is in it."""
        began = perf_counter()
        call, grpc_client = check.UNREADABLE, False
        evidence, refusal = Evidence(), None
        try:
            call = check.call_from(check.parse(body), jwt_authn_payload=self._jwt_authn_payload)
            grpc_client = check.is_grpc(call.metadata)
            principal = yield from self._authorizer.authorize(call, evidence)
            check.check_path(call, grpc=grpc_client)
            answer = check.allowed(principal, self._authorizer.trusted, remove_authorization=self._remove_authorization)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - an RPC error is let through by failure_mode_allow
            refusal = self._authorizer.refusal(call, error)
            answer = check.denied(refusal, grpc=grpc_client)
        if self._observers:
            self._tell(call, evidence, refusal, perf_counter() - began)
        return answer

    def unforeseen(self, error: BaseException) -> bytes:
        """Return the answer to a request of which nothing is known but that ``error`` came up."""
        try:
            return check.denied(self._authorizer.refusal(check.UNREADABLE, error), grpc=True)
        except BaseException:  # noqa: BLE001 - not even the log works
            return _LAST_WORD

    def _tell(self, call: Call, evidence: Evidence, refusal: Refusal | None, seconds: float) -> None:
        decision = Decision(call, evidence, refusal, seconds)
        for observe in self._observers:
            try:
                observe(decision)
            except Exception as error:  # noqa: BLE001 - whoever counts decisions has no say in them
                telemetry.unforeseen("observer", error)
