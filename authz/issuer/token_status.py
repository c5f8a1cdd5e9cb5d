"""What an introspection endpoint's answer says of a token (RFC 7662 section 2.2)."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from authz.call.principal import Principal
from authz.runtime.asking import NoAnswerError
from authz.runtime.network import causes
from authz.runtime.network.transport import HttpResponse
from authz.token.encoding import EncodingError, json_object

_OK, _UNAUTHORIZED, _TOO_MANY, _SERVER_ERROR = 200, 401, 429, 500
# Our own credentials are wrong: asking again does not mend them.
_CREDENTIALS_PAUSE = 30.0
_LONGEST_PAUSE = 60.0
_STANDARD = ("iss", "sub", "org_id", "client_id", "exp", "jti")


class TokenStatus(NamedTuple):
    """What the issuer says of a token.

    Args:
        is_active: whether the token is active, and the answer is about this token.
        error: how the answer contradicts the token, in the words of :mod:`authz.runtime.network.causes`; else empty.

    """

    is_active: bool
    error: str = ""


def read_status(answer: HttpResponse, principal: Principal) -> TokenStatus:
    """Return what ``answer`` says of the token that named ``principal``.

    Raises:
        NoAnswerError: it says nothing. It is an outage only where the issuer says itself that it fails: any other
            answer that cannot be used may be for a mistake in our configuration, or for what a caller does, and must
            open nothing.

    """
    if answer.status == _UNAUTHORIZED:
        error = f"{causes.status(_UNAUTHORIZED)} (our own client credentials were refused)"
        raise NoAnswerError(error, pause=_CREDENTIALS_PAUSE, is_ours=True)
    if answer.status != _OK:
        pause = min(answer.retry_after, _LONGEST_PAUSE) if answer.status == _TOO_MANY else 0.0
        raise NoAnswerError(causes.status(answer.status), pause=pause, is_outage=answer.status >= _SERVER_ERROR)
    try:
        said = json_object(answer.body)
    except EncodingError:
        raise NoAnswerError("not JSON") from None
    # The member is required, and a boolean: any value but true is not active.
    if said.get("active") is not True:
        return TokenStatus(is_active=False)
    different = _contradiction(said, principal)
    return TokenStatus(
        not different, f"mismatch (the issuer speaks of another token: {different})" if different else ""
    )


def _contradiction(said: Mapping[str, Any], principal: Principal) -> str:
    claims = principal.claims
    for name in _told(principal):
        if name in said and name in claims and said[name] != claims[name]:
            return name
    # RFC 7662 section 2.2 calls the application so, even if the token names it in another claim.
    if said.get("client_id", principal.client_id) != principal.client_id and "client_id" not in claims:
        return "client_id"
    audience = said.get("aud", list(principal.audience))
    if not any(value in principal.audience for value in (audience if isinstance(audience, list) else [audience])):
        return "aud"
    return "token_type" if said.get("token_type") == "refresh_token" else ""


def _told(principal: Principal) -> Iterator[str]:
    """Yield the names of the claims that say whose the token is, which may be names of the issuer's own."""
    yield from _STANDARD
    yield from (name for name, value in principal.claims.items() if value in (principal.org_id, principal.client_id))
