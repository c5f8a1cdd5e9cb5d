"""Envoy's ``Check``, whatever serves it: bytes in, bytes out."""

from functools import partial

from authz.call.call import UNREADABLE, Call
from authz.call.principal import ANONYMOUS, Principal
from authz.call.refusal import Challenge, refusal_of
from authz.decisions.decision import Evidence
from authz.envoy.check.answer import allowed, denied
from authz.envoy.check.bodies import body_of
from authz.envoy.check.deadline import ending
from authz.envoy.check.question import Question, check_path, read
from authz.envoy.memo.mark import Memo
from authz.errors import InternalError
from authz.http.forms import Form
from authz.http.isolation import RequestIsolation
from authz.judge.authorizer import Authorizer
from authz.judge.hearing import Hearing
from authz.runtime.flow import Flow, Wait
from authz.runtime.waiting import MAX_PENDING, Waiting

SERVICE = "envoy.service.auth.v3.Authorization"

# No verdicts: the process ends, or the flow is given up.
_ENDS = (KeyboardInterrupt, SystemExit, GeneratorExit)

_LAST_WORD = denied(refusal_of(InternalError(), Challenge()), Form.GRPC)


class AuthorizationServicer:
    """Answer Envoy's ``Check``, in messages of our own that are the same on the wire.

    Args:
        authorizer: the judge.
        remove_authorization: whether Envoy keeps the token from the upstream.
        jwt_authn_payload: the ``payload_in_metadata`` of Envoy's filter jwt_authn, which is then believed to have
            checked the signature of a token that the request no longer carries. Every rule about claims still applies.
            Only Envoy may reach the server then, since any other client could write what it likes there, though all
            that it gets is a verdict. Empty to believe no payload.
        end_streams: whether Envoy ends each call with its token: at its ``exp`` and the leeway. Unary methods that
            ``isolation`` knows are not ended.
        isolation: checks what requests name, where Envoy shows them; ``authorizer.replace_policy`` replaces it.
        max_pending: how many checks may wait at a time; see :class:`authz.runtime.waiting.Waiting`.
        memo: has Envoy remember what is allowed; ``None`` for nothing.

    """

    def __init__(
        self,
        authorizer: Authorizer,
        *,
        remove_authorization: bool = False,
        jwt_authn_payload: str = "",
        end_streams: bool = False,
        isolation: RequestIsolation | None = None,
        max_pending: int = MAX_PENDING,
        memo: Memo | None = None,
    ) -> None:
        self.authorizer = authorizer
        self._memo = memo
        self._remove_authorization = remove_authorization
        self._jwt_authn_payload = jwt_authn_payload
        self._ends_streams = end_streams
        if isolation is not None:
            authorizer.in_force.replace(authorizer.policy, isolation)
        self._waiting = Waiting(max_pending)

    @property
    def pending(self) -> int:
        """How many checks wait now."""
        return self._waiting.count

    async def check(self, body: bytes, _context: object) -> bytes:
        """Return the answer, as a handler of ``grpc.aio``; see :meth:`begin`."""
        try:
            begun = self.begin(body)
            if isinstance(begun, bytes):
                return begun
            return await self._waiting.finish(*begun)
        except (Exception, GeneratorExit) as error:  # noqa: BLE001 - see _check_flow
            # Logging failed, or a rule raised GeneratorExit, which the closed generator hides.
            return self.unforeseen(error)

    def begin(self, body: bytes) -> bytes | tuple[Flow[bytes], Wait]:
        """Return a serialized ``CheckResponse`` for a serialized ``CheckRequest``, whatever is in it.

        Most checks need not wait. For one that does, return the flow that will return the response, and the wait that
        the flow has yielded; the engine drives the flow to its end, and then calls :meth:`end` with that wait.
        """
        hearing, form = Hearing(self.authorizer, UNREADABLE, "envoy"), Form.HTTP
        # Before the verdict: if something changes meanwhile, Envoy must forget it.
        generation = "" if self._memo is None else self._memo.generation
        try:
            question = read(body, jwt_authn_payload=self._jwt_authn_payload)
            hearing.call, form, _ = question
            principal = hearing.at_once()
            answer = None if principal is None else self._answer(hearing, question, principal, generation)
        except _ENDS:
            raise
        except BaseException as error:  # noqa: BLE001 - an RPC error is let through by failure_mode_allow
            return denied(hearing.refused(error), form)
        if answer is None:
            return self._waiting.begin(self._check_flow(hearing, question, generation))
        hearing.allowed()
        return answer

    def end(self, wait: Wait) -> None:
        """Give back the place of a check that had to wait, for ``wait`` first, and is over."""
        self._waiting.end(wait)

    def _check_flow(self, hearing: Hearing, question: Question, generation: str) -> Flow[bytes]:
        try:
            principal = yield from self.authorizer.authorize(hearing.call, hearing.evidence)
            answer = self._answer(hearing, question, principal, generation)
        except _ENDS:
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            return denied(hearing.refused(error), question.form)
        hearing.allowed()
        return answer

    def _answer(self, hearing: Hearing, question: Question, principal: Principal, generation: str) -> bytes:
        """Return the answer to a call that the judge admits, unless what it is about forbids it."""
        call, form, http = question
        evidence, memo = hearing.evidence, self._memo
        check_path(call.method, grpc=form is Form.GRPC)
        if evidence.isolation is not None:
            evidence.isolation.check_request(http.path, http.method, principal, partial(body_of, http))
        answer = allowed(
            principal,
            self.authorizer.trusted,
            remove_authorization=self._remove_authorization,
            quota=evidence.quota,
        )
        ends = self._seconds_left(call, principal, evidence) if self._ends_streams else None
        if ends is not None:
            answer += ending(http, form, ends)
        if memo is not None:
            answer += memo.mark(call, evidence, generation, ends)
        return answer

    def _seconds_left(self, call: Call, principal: Principal, evidence: Evidence) -> float | None:
        """Return in how many seconds a call must end; ``None`` if it may go on."""
        if principal is ANONYMOUS or (evidence.isolation is not None and call.method in evidence.isolation.unary):
            return None
        verifier = self.authorizer.verifier
        return verifier.ends_at(principal) - verifier.clock.time()

    def unforeseen(self, error: BaseException) -> bytes:
        """Return the answer to a request that failed with ``error`` before or after its check."""
        try:
            return denied(self.authorizer.telling.refusal(UNREADABLE, error), Form.GRPC)
        except BaseException:  # noqa: BLE001 - logging fails, too
            return _LAST_WORD
