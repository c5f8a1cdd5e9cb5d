"""What was decided about a call and on what grounds, for whoever counts or records decisions."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from authz.call import ANONYMOUS, Call, Principal
from authz.errors import Code
from authz.refusal import Refusal

Source = Literal["none", "public", "proxy", "cache", "signature", "introspection"]
"""What a verdict rests on: nothing that could be believed, a public method, the word of a trusted proxy, a token
remembered, a signature just checked, or the issuer's word on top of either."""

Verdict = Literal["allowed", "denied", "undecided", "failed"]

_VERDICTS: dict[Code, Verdict] = {
    Code.UNAUTHENTICATED: "denied",
    Code.PERMISSION_DENIED: "denied",
    Code.UNAVAILABLE: "undecided",
    Code.INTERNAL: "failed",
}


class Evidence:
    """What the judge finds out about one call on its way to a verdict; it fills this in as it goes.

    Attributes:
        principal: who calls, once that is known, also where the call is refused in the end; else ``ANONYMOUS``.
        source: what that rests on.
        rule: the policy's rule that decided; empty where none did.

    """

    __slots__ = ("principal", "rule", "source")

    def __init__(self) -> None:
        self.principal: Principal = ANONYMOUS
        self.source: Source = "none"
        self.rule = ""


class Decision(NamedTuple):
    """One decision.

    Args:
        call: the call.
        evidence: what is known of it.
        refusal: what its caller got, or ``None`` if it was allowed.
        seconds: how long it took, waiting included.

    """

    call: Call
    evidence: Evidence
    refusal: Refusal | None
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """The outcome, in a word."""
        return "allowed" if self.refusal is None else _VERDICTS[self.refusal.code]


Observer = Callable[[Decision], None]
"""Is told of every decision before it is answered, so it must not wait for anything."""
