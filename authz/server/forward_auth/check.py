"""The check that a proxy asks for over HTTP, whatever serves it: a question in, an answer out."""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from authz.call.call import UNREADABLE, malformed
from authz.call.known import Known
from authz.call.metadata import TrustedMetadata
from authz.call.principal import Principal
from authz.call.refusal import Challenge, Refusal, refusal_of
from authz.errors import InternalError
from authz.http.forms import Form
from authz.http.headers import Header, refusal_answer, text_of
from authz.judge.authorizer import Authorizer
from authz.judge.hearing import Hearing
from authz.runtime.flow import Flow, Wait
from authz.runtime.waiting import MAX_PENDING, Waiting
from authz.server.forward_auth.question import Headers, Question, Reader

REFUSAL = b"x-authz-refusal"
"""The header with the body of a refusal, for nginx, which shows its configuration no body of an answer."""

_VALUE = re.compile(r"[ -~]*")

_REMEMBERED = 10_000


class Answer(NamedTuple):
    """An answer to a proxy, which lets the request pass if and only if ``status`` is 200."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


class ForwardAuth:
    """Answer the questions of proxies.

    Args:
        authorizer: the judge.
        headers: where a question says what it is about; see :class:`authz.server.forward_auth.question.Reader`.
        max_pending: how many checks may wait at a time; see :class:`authz.runtime.waiting.Waiting`.

    """

    def __init__(self, authorizer: Authorizer, headers: Headers, *, max_pending: int = MAX_PENDING) -> None:
        self._authorizer = authorizer
        self._reader = Reader(headers, authorizer.trusted)
        # nginx is the one that cannot show a body, and the one with these headers.
        self._repeats_body = headers == "original"
        self.waiting = Waiting(max_pending)
        # Most callers that are allowed call again.
        self._allowed = Known[Answer](_REMEMBERED)

    def begin(self, verb: str, target: str, headers: Sequence[Header]) -> Answer | tuple[Flow[Answer], Wait]:
        """Return the answer to a question; see :meth:`authz.runtime.waiting.Waiting.begin`.

        Args:
            verb: the method of the question.
            target: its target.
            headers: its headers, with names in lower case.

        """
        return self.waiting.begin(self._check_flow(verb, target, headers))

    def unreadable(self) -> Answer:
        """Return the answer to what is no question, because it is no HTTP or too large."""
        return self._refuse(Hearing(self._authorizer, UNREADABLE, "forward_auth").refused(malformed()))

    def unforeseen(self, error: BaseException) -> Answer:
        """Return the answer to a question that failed with ``error`` before or after its check."""
        try:
            return self._refuse(self._authorizer.telling.refusal(UNREADABLE, error))
        except BaseException:  # noqa: BLE001 - logging fails, too
            return _LAST_WORD

    def _check_flow(self, verb: str, target: str, headers: Sequence[Header]) -> Flow[Answer]:
        hearing = Hearing(self._authorizer, UNREADABLE, "forward_auth")
        try:
            answer = yield from self._judge(hearing, self._reader.read(verb, target, headers))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever happens, the proxy must not let the request pass
            return self._refuse(hearing.refused(error))
        hearing.allowed()
        return answer

    def _judge(self, hearing: Hearing, question: Question) -> Flow[Answer]:
        hearing.call, target, fault = question
        evidence = hearing.evidence
        principal = hearing.at_once()
        if principal is None:
            principal = yield from self._authorizer.authorize(hearing.call, evidence)
        if fault is not None:
            raise fault
        if evidence.isolation is not None:
            # No proxy shows a body here that is sure to be the whole body of the request.
            evidence.isolation.check_request(target, hearing.call.verb, principal, bytes)
        return self._allowed.of(principal) or self._allowed.remember(
            principal, allowed(self._authorizer.trusted, principal)
        )

    def _refuse(self, refusal: Refusal) -> Answer:
        return refused(refusal, repeats_body=self._repeats_body)


def allowed(trusted: TrustedMetadata, principal: Principal) -> Answer:
    """Return the answer that lets a request pass and tells its upstream who makes it.

    Every trusted name is in it, empty where there is nothing to say: so a proxy that copies all of them overwrites what
    a caller has sent.

    Raises:
        InternalError: a value of the principal fits into no header, so the upstream would not receive it.

    """
    known = {entry.key: text_of(entry.value) for entry in trusted.entries(principal)}
    said = [(name, known.get(name, "")) for name in trusted.names]
    if not all(_VALUE.fullmatch(value) for _, value in said):
        raise InternalError
    return Answer(200, tuple((name.encode("ascii"), value.encode("ascii")) for name, value in said), b"")


# There are few reasons, and a caller that is refused may ask often.
@functools.lru_cache(512)
def refused(refusal: Refusal, *, repeats_body: bool) -> Answer:
    """Return the answer that stops a request.

    It is always written for plain HTTP: in other protocols a refusal has the status 200, which proxies let pass.

    Args:
        refusal: what the caller gets.
        repeats_body: whether the body is in a header as well.

    """
    status, headers, body = refusal_answer(refusal, Form.HTTP)
    sent = tuple(header for header in headers if header[0] != b"content-length")
    return Answer(status, (*sent, (REFUSAL, body)) if repeats_body else sent, body)


_LAST_WORD = refused(refusal_of(InternalError(), Challenge()), repeats_body=True)
