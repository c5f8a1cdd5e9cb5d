"""What a token endpoint answers (RFC 6749 section 5): a token, the issuer's refusal, or nothing that counts.

Pure: no clock, no I/O, no state.
"""

import math
import re
from typing import Any, NamedTuple

from authz.runtime.asking import NoAnswerError
from authz.runtime.network import causes
from authz.runtime.network.transport import HttpResponse
from authz.token.encoding import EncodingError, base64url_decode, json_object

_OK = 200
# RFC 6749 section 5.2. An answer by a proxy, a firewall or a page is an outage, even with one of these.
_REFUSALS = frozenset((400, 401))
# Errors of an authorization endpoint (section 4.1.2.1) and of RFC 8628 that some token endpoints borrow.
_PASSING = frozenset(("server_error", "temporarily_unavailable", "slow_down"))
_UNSAID_LIFETIME = 60.0
_DENIED_PAUSE, _LONGEST_PAUSE = 30.0, 3600.0

_TOKEN = re.compile(r"[!-~]{1,16384}", re.ASCII)
_ERROR_CODE = re.compile(r"[a-z_]{1,64}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,10}", re.ASCII)


class TokenRefusedError(NoAnswerError):
    """The issuer has refused a token, and would refuse it again if asked again."""


class IssuedToken(NamedTuple):
    """An access token, and the seconds that it lives from when it was asked for."""

    text: str
    lifetime: float


def read_token(response: HttpResponse, now: float) -> IssuedToken:
    """Return the token of an answer that came to a request of ``now``, in POSIX seconds.

    Raises:
        NoAnswerError: there is none, or one that cannot be used.

    """
    if response.status != _OK:
        raise _refusal(response)
    try:
        answer = json_object(response.body)
    except EncodingError as error:
        raise NoAnswerError("not JSON") from error
    text, kind = answer.get("access_token"), answer.get("token_type")
    if not isinstance(text, str) or not _TOKEN.fullmatch(text):
        raise NoAnswerError("no token (the answer holds no access token)")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        # RFC 6749 section 7.1: a client must not use a token of a kind that it does not know.
        raise NoAnswerError("no token (it is not a bearer token)")
    # The issuer's own clock, where it is told, so that ours need not agree with it.
    return IssuedToken(text, _lifetime(answer.get("expires_in"), _expiry(text), response.date or now))


def _refusal(response: HttpResponse) -> NoAnswerError:
    why = causes.status(response.status)
    try:
        code = json_object(response.body).get("error")
    except EncodingError:
        code = None
    has_code = isinstance(code, str) and _ERROR_CODE.fullmatch(code) is not None
    if has_code:
        why += f" ({code})"
    pause = min(response.retry_after, _LONGEST_PAUSE)
    is_denied = has_code and response.status in _REFUSALS and code not in _PASSING
    return TokenRefusedError(why, pause=max(pause, _DENIED_PAUSE)) if is_denied else NoAnswerError(why, pause=pause)


def _lifetime(said: Any, expires_at: float | None, now: float) -> float:
    if isinstance(said, str) and _SECONDS.fullmatch(said):
        # Against RFC 6749 section 5.1, but several issuers write it so.
        said = int(said)
    own = math.inf if expires_at is None else expires_at - now
    if said is None:
        said = _UNSAID_LIFETIME if expires_at is None else own
    if type(said) not in (int, float) or not math.isfinite(said) or said <= 0:
        raise NoAnswerError("no token (expires_in is not a number of seconds)")
    if own <= 0:
        raise NoAnswerError("expired (the token has expired already)")
    return min(float(said), own)


def _expiry(token: str) -> float | None:
    # Read without verifying: it may only have us fetch the next token sooner.
    try:
        expires_at = json_object(base64url_decode(token.split(".")[1])).get("exp")
    except (EncodingError, IndexError):
        return None
    return float(expires_at) if isinstance(expires_at, int | float) and type(expires_at) is not bool else None
