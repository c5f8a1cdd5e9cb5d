"""What is told of a verdict: the refusal to the caller, the decision to the observers."""

from collections.abc import Collection

from authz.call.call import Call
from authz.call.refusal import Challenge, Refusal, refusal_of
from authz.decisions.client_names import ClientNames
from authz.decisions.decision import Decision, Door, Event, Evidence, Observer
from authz.errors import AuthzError, InternalError, PermissionDeniedError
from authz.issuer.token_verifier import TokenVerifier
from authz.judge.shadow import Shadow
from authz.runtime import telemetry


class Telling:
    """Make refusals, and tell the observers what was decided.

    Args:
        verifier: knows the time, and how old its keys are.
        shadow: compares each decision with the policy on trial.
        challenge: what ``www-authenticate`` says.
        observers: are told of every decision at every door.

    Attributes:
        client_names: what the applications of callers are called.

    """

    def __init__(
        self, verifier: TokenVerifier, shadow: Shadow, challenge: Challenge, observers: Collection[Observer]
    ) -> None:
        self._verifier, self._shadow, self._challenge = verifier, shadow, challenge
        self._observers = tuple(observers)
        self.client_names = ClientNames()

    @property
    def is_heard(self) -> bool:
        """Whether anybody is told of decisions that allow a call: an observer, or a policy on trial."""
        return bool(self._observers) or self._shadow.policy is not None

    def observe(self, observer: Observer) -> None:
        """Tell ``observer`` as well, of every decision from now on."""
        self._observers = (*self._observers, observer)

    def refusal(self, call: Call, error: BaseException, *, event: str = "call_refused") -> Refusal:
        """Log why ``call`` is refused and return what its caller sees; the unforeseen is an INTERNAL error."""
        if not isinstance(error, AuthzError):
            telemetry.unforeseen("authorize", error)
            error = InternalError()
        if telemetry.is_logged(telemetry.INFO):
            _log(call, error, event)
        return refusal_of(error, self._challenge)

    def decided(
        self,
        call: Call,
        evidence: Evidence,
        refusal: Refusal | None,
        seconds: float,
        *,
        door: Door,
        event: Event = "decision",
    ) -> None:
        """Tell the observers what was decided about ``call``; once for every call.

        Args:
            call: the call.
            evidence: what :meth:`authz.Authorizer.authorize` was given with it.
            refusal: what its caller gets, or ``None`` if it is allowed.
            seconds: how long that took.
            door: where it came in.
            event: what was decided.

        """
        if event == "decision" and self._shadow.policy is not None:
            self._shadow.compare(call, evidence, refusal)
        if not self._observers:
            return
        time, key_age = self._verifier.clock.time(), self._verifier.key_age(evidence.principal)
        self.repeated(Decision(call, evidence, refusal, seconds, door, event, time, key_age))

    def repeated(self, decision: Decision) -> None:
        """Tell the observers of a decision that was repeated, so that the judge knows nothing of it."""
        name = self.client_names.of(decision.evidence.principal)
        if name:
            decision = decision._replace(client_name=name)
        for observe in self._observers:
            try:
                observe(decision)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - an observer has no say
                telemetry.unforeseen("observer", error)


def _log(call: Call, error: AuthzError, event: str) -> None:
    rule = error.rule if isinstance(error, PermissionDeniedError) else ""
    told = {"rule": rule} if rule else {}
    if call.verb not in ("POST", ""):
        told["verb"] = call.verb
    telemetry.event(telemetry.INFO, event, method=call.method, code=error.code.name, reason=error.reason, **told)
