"""Whether a webhook is from WorkOS: its signature, of a time and the body, by a secret that only WorkOS has besides us.

Source: https://workos.com/docs/events/data-syncing/webhooks, and what WorkOS's own client checks.
"""

import hmac
import re
from collections.abc import Sequence
from typing import Self

TOLERANCE_SECONDS = 180.0
"""By how much the time that was signed may differ from ours, in either direction."""

# The time is in milliseconds. Neither older nor newer schemes count: there are none.
_HEADER = re.compile(r"t=([0-9]{13}), ?v1=([0-9a-f]{64})")


class Proof:
    """What says whether a body was signed; it is given the body piece by piece, and keeps none of it.

    Args:
        at: the time that was signed, as the header has it.
        signed: the signature, in hexadecimal.
        secrets: those that may have signed.

    """

    def __init__(self, at: str, signed: str, secrets: Sequence[str]) -> None:
        self._signed = signed
        self._expected = [hmac.new(secret.encode(), f"{at}.".encode(), "sha256") for secret in secrets]

    @classmethod
    def begun(cls, headers: Sequence[str], secrets: Sequence[str], now: float) -> Self | None:
        """Return the proof that a request claims to have; ``None`` if it can have none.

        Args:
            headers: every value of ``WorkOS-Signature``.
            secrets: those that may have signed: several while one replaces another.
            now: the time, in POSIX seconds.

        """
        found = _HEADER.fullmatch(headers[0]) if len(headers) == 1 else None
        if found is None or abs(now - int(found[1]) / 1000) > TOLERANCE_SECONDS:
            return None
        return cls(found[1], found[2], secrets)

    def update(self, piece: bytes) -> None:
        """Take in the next piece of the body."""
        for expected in self._expected:
            expected.update(piece)

    def holds(self) -> bool:
        """Say whether one of the secrets has signed all of the body; which one, the time that it takes does not say."""
        found = [hmac.compare_digest(expected.hexdigest(), self._signed) for expected in self._expected]
        return any(found)
