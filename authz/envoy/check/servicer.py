"""Envoy's ``Check``, whatever serves it: bytes in, bytes out."""

from time import perf_counter

from authz.call.refusal import Challenge, refusal_of
from authz.decisions.decision import Evidence
from authz.envoy.check.answer import allowed, denied
from authz.envoy.check.forms import Form
from authz.envoy.check.isolation import RequestIsolation
from authz.envoy.check.question import UNREADABLE, check_path, read
from authz.errors import InternalError, OverloadedError
from authz.judge.authorizer import Authorizer
from authz.runtime.flow import Flow, Wait, arun
from authz.runtime.shares import Shares

SERVICE = "envoy.service.auth.v3.Authorization"

_LAST_WORD = denied(refusal_of(InternalError(), Challenge()), Form.GRPC)

MAX_PENDING = 1024


class AuthorizationServicer:
    """Answer Envoy's ``Check``; the messages are ours, the wire is the same.

    Args:
        authorizer: the judge.
        remove_authorization: whether Envoy keeps the token from the upstream.
        jwt_authn_payload: the ``payload_in_metadata`` of Envoy's filter jwt_authn, whose word is then taken for
            the signature of a token that the request no longer carries. Every rule about claims still applies.
            Whoever else reaches the server could write anything there, though all that it gets is a verdict:
            only Envoy may reach it. Empty to believe nothing of the kind.
        isolation: checks what requests name, where Envoy shows them; ``authorizer.replace_policy`` replaces it.
        max_pending: how many checks may wait at a time, for keys, for the issuer's word or for the directory's. Half
            of them at the most are of one organization, or of callers whose token has not been verified yet, so that
            none keeps out another. One more is answered UNAVAILABLE at once: Envoy's patience is short, and what
            waits costs memory.

    """

    def __init__(
        self,
        authorizer: Authorizer,
        *,
        remove_authorization: bool = False,
        jwt_authn_payload: str = "",
        isolation: RequestIsolation | None = None,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self.authorizer = authorizer
        self._remove_authorization = remove_authorization
        self._jwt_authn_payload = jwt_authn_payload
        if isolation is not None:
            authorizer.isolation = isolation
        self._waiting = Shares(max_pending)

    @property
    def pending(self) -> int:
        """How many checks wait now."""
        return self._waiting.taken

    async def check(self, body: bytes, _context: object) -> bytes:
        """Return the answer, as a handler of ``grpc.aio``; see :meth:`begin`."""
        try:
            begun = self.begin(body)
            if isinstance(begun, bytes):
                return begun
            flow, wait = begun
            try:
                return await arun(flow, waiting=wait)
            finally:
                self.end(wait)
        except (Exception, GeneratorExit) as error:  # noqa: BLE001 - see _check_flow
            # Our log is out of order, or a rule has raised GeneratorExit: whoever closes a flow does not see it again.
            return self.unforeseen(error)

    def begin(self, body: bytes) -> bytes | tuple[Flow[bytes], Wait]:
        """Return a serialized ``CheckResponse`` for a serialized ``CheckRequest``, whatever is in it.

        Mostly that takes no waiting. Else it returns the flow that will return the response, and what that has yielded
        already; the engine that has driven it to its end calls :meth:`end` with that.
        """
        flow = self._check_flow(body)
        try:
            wait = next(flow)
            if self._waiting.take(wait.whose):
                return flow, wait
            flow.throw(OverloadedError())
        except StopIteration as done:
            answer: bytes = done.value
            return answer
        raise RuntimeError("a flow must not go on after it has been told to end")

    def end(self, wait: Wait) -> None:
        """Say that a check is over which had to wait, for ``wait`` first."""
        self._waiting.give_back(wait.whose)

    def _check_flow(self, body: bytes) -> Flow[bytes]:
        began = perf_counter()
        call, form = UNREADABLE, Form.HTTP
        evidence, refusal = Evidence(), None
        try:
            call, form, http = read(body, jwt_authn_payload=self._jwt_authn_payload)
            principal = yield from self.authorizer.authorize(call, evidence)
            check_path(call.method, grpc=form is Form.GRPC)
            if evidence.isolation is not None:
                evidence.isolation.check_request(http, principal)
            answer = allowed(
                principal,
                self.authorizer.trusted,
                remove_authorization=self._remove_authorization,
                quota=evidence.quota,
            )
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - an RPC error is let through by failure_mode_allow
            refusal = self.authorizer.refusal(call, error)
            answer = denied(refusal, form)
        self.authorizer.decided(call, evidence, refusal, perf_counter() - began, door="envoy")
        return answer

    def unforeseen(self, error: BaseException) -> bytes:
        """Return the answer to a request of which nothing is known but that ``error`` came up."""
        try:
            return denied(self.authorizer.refusal(UNREADABLE, error), Form.GRPC)
        except BaseException:  # noqa: BLE001 - not even the log works
            return _LAST_WORD
