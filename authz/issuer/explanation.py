"""Why a token is refused, for the operator who has it: what was found, what was expected, and which setting decides.

For commands and the admin page, to which an operator gives the token; callers are told none of it. What is found is
quoted from the token as JSON, bounded and not verified; the signature is not shown.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeGuard

from authz.call.words import MAX_TIME, is_identifier
from authz.errors import (
    AlgorithmNotAllowedError,
    AuthzError,
    BadSignatureError,
    ClaimError,
    KeyNotFoundError,
    KeySetUnavailableError,
    KeyUndecidedError,
    PeerUnknownError,
    TokenMalformedError,
)
from authz.issuer.keys import KeySetHealth
from authz.issuer.token_verifier import Expectations
from authz.runtime.clock import Clock
from authz.runtime.network import causes
from authz.runtime.text.printable import bounded
from authz.token.claims import ID_TOKEN_CLAIMS, ClaimRules
from authz.token.encoding import EncodingError, base64url_decode, json_object
from authz.token.jwk import SUPPORTED_ALGORITHMS, algorithm_name, is_kid
from authz.token.jws import MAX_TOKEN_LENGTH, REFUSED_HEADERS
from authz.token.profiles import CLIENT_ID, TokenProfile

_MOST_SHOWN = 200
_MOST_KEYS = 8
_SEGMENTS, _SEGMENTS_OF_JWE = 3, 5

_OF_KIND = ("token_profile", "client_id_claim", "allow_user_tokens")
_OF_CAUSE = {"certificate": ("ca_file",), "proxy": ("proxy_from_env",)}
_DECIDING_CLAIMS = ("iss", "aud", "exp", "sub", "client_id", "org_id", "cnf")

Members = Mapping[str, Any]


class Expecting(Protocol):
    """A verifier of one issuer, or of several."""

    @property
    def clock(self) -> Clock:
        """Where the time comes from."""

    def expectations(self, issuer: object = None, /) -> Expectations | None:
        """Return what tokens of ``issuer`` must be."""

    def health(self) -> Mapping[str, KeySetHealth]:
        """Return the state of the issuers' keys, by issuer."""


class Explanation(NamedTuple):
    """Why a token is refused.

    Args:
        found: what the token, or the issuer, says.
        expected: what would have been good.
        settings: the names of the settings that decide it; empty if none does.

    """

    found: str
    expected: str
    settings: tuple[str, ...] = ()

    def as_data(self) -> dict[str, str]:
        """Return it as plain data, with settings as the flags that they are."""
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in self.settings)
        return {"found": self.found, "expected": self.expected, "setting": flags}


_NO_PAYLOAD = Explanation("a payload that is not one JSON object in base64url", "the claims of an access token")


class UnverifiedToken(NamedTuple):
    """What a token says, which is not verified; ``None`` for what cannot be read."""

    header: dict[str, Any] | None
    claims: dict[str, Any] | None


def unverified(token: str) -> UnverifiedToken:
    """Return what ``token`` says, for showing it to the operator who has it."""
    segments = token.split(".", _SEGMENTS)
    return UnverifiedToken(_segment(segments, 0), _segment(segments, 1))


def explain(error: AuthzError, token: str, verifier: Expecting) -> Explanation | None:
    """Return why ``verifier`` has refused ``token``, or cannot decide; ``None`` if there is nothing to add.

    Args:
        error: the error that it has raised.
        token: the token.
        verifier: whose settings decide; no keys are fetched for it.

    """
    header, claims = unverified(token)
    issuer = None if claims is None else claims.get("iss")
    expected = verifier.expectations(issuer)
    if isinstance(error, TokenMalformedError):
        return _malformed(token, header, claims, expected)
    if isinstance(error, AlgorithmNotAllowedError):
        return _algorithm(header or {}, expected)
    if not isinstance(error, ClaimError):
        return _of_keys(error, header or {}, verifier.health().get(issuer) if isinstance(issuer, str) else None)
    if error.claim == "iss" or expected is None:
        return Explanation(_said(claims or {}, "iss"), _one_of(sorted(verifier.health())), ("issuer",))
    return _of_claim(_Refused(error, claims or {}, expected.rules, verifier.clock.time()))


def explain_reason(reason: str, token: str, now: float) -> Explanation | None:
    """Explain a refusal by another process, whose settings are not known here, as far as that is possible.

    Args:
        reason: that of the refusal.
        token: the token that was refused.
        now: POSIX seconds.

    """
    header, claims = unverified(token)
    if reason == "token_malformed":
        return _malformed(token, header, claims, None)
    if header is None or claims is None:
        return None
    told = {
        "algorithm_not_allowed": lambda: _algorithm(header, None),
        "key_not_found": lambda: _key(header, None),
        "key_undecided": lambda: _key(header, None),
        "signature_invalid": lambda: _signature(header, None),
        "token_expired": lambda: _expired(claims, None, now),
        "claim_missing": lambda: _some_claim(claims),
        "claim_invalid": lambda: _some_claim(claims),
    }
    return told[reason]() if reason in told else None


# ---- The envelope ----


def _malformed(
    token: str, header: Members | None, claims: Members | None, expected: Expectations | None
) -> Explanation:
    return (
        _misshapen(token)
        or _of_header(header, expected)
        or (_NO_PAYLOAD if claims is None else _of_type(header or {}, expected))
        or Explanation("a segment that is not canonical base64url", "a signed JWT")
    )


def _misshapen(token: str) -> Explanation | None:
    count = token.count(".") + 1
    has_scheme = token.lower().startswith("bearer ")
    if count == _SEGMENTS and len(token) <= MAX_TOKEN_LENGTH and token.isascii() and not has_scheme:
        return None
    found = f"{count} segment{'' if count == 1 else 's'}, {len(token)} characters"
    if has_scheme:
        found += ", and the word Bearer before them"
    elif count == _SEGMENTS_OF_JWE:
        found += ": an encrypted token (JWE)"
    elif count == 1:
        found += ": no JWT"
    return Explanation(found, f"a signed JWT: three segments of ASCII, at most {MAX_TOKEN_LENGTH} characters")


def _of_header(header: Members | None, expected: Expectations | None) -> Explanation | None:
    if header is None:
        return Explanation("a header that is not one JSON object in base64url", "a signed JWT")
    for name in REFUSED_HEADERS:
        if name in header:
            return Explanation(f"header: {_said(header, name)}", f"no {name}, which no access token needs")
    if "kid" not in header and (expected is None or expected.require_kid):
        return Explanation("header: no kid", "the name of the key that has signed it", ("allow_missing_kid",))
    kid = header.get("kid", "-")
    if not isinstance(kid, str) or not is_kid(kid):
        return Explanation(f"header: {_said(header, 'kid')}", "1 to 128 printable ASCII characters")
    return None


def _of_type(header: Members, expected: Expectations | None) -> Explanation | None:
    if expected is not None and expected.require_at_jwt:
        return Explanation(f"header: {_said(header, 'typ')}", "typ at+jwt", ("require_at_jwt",))
    return Explanation(f"header: {_said(header, 'typ')}", "typ at+jwt or JWT, or none") if "typ" in header else None


def _algorithm(header: Members, expected: Expectations | None) -> Explanation:
    said = header.get("alg")
    can_be_allowed = isinstance(said, str) and algorithm_name(said) in SUPPORTED_ALGORITHMS
    allowed = "an algorithm that the server allows" if expected is None else _one_of(sorted(expected.algorithms))
    if not can_be_allowed:
        allowed += "; this one can never be allowed, for it is no asymmetric signature"
    return Explanation(f"header: {_said(header, 'alg')}", allowed, ("algorithms",) if can_be_allowed else ())


# ---- Keys ----


def _of_keys(error: AuthzError, header: Members, health: KeySetHealth | None) -> Explanation | None:
    if isinstance(error, KeyNotFoundError | KeyUndecidedError):
        return _key(header, health)
    if isinstance(error, KeySetUnavailableError):
        return _unavailable(error)
    return _signature(header, health) if isinstance(error, BadSignatureError) else None


def _key(header: Members, health: KeySetHealth | None) -> Explanation:
    kid, found = header.get("kid"), f"header: {_said(header, 'kid')}, {_said(header, 'alg')}"
    settings = ("jwks_url",) if "kid" in header else ("jwks_url", "allow_missing_kid")
    if health is None:
        return Explanation(found, "a key that the issuer publishes", settings)
    reasons = [reason for name, reason in health.dropped if name is not None and name == kid]
    if reasons:
        found = f"{found}; the issuer's key of this kid cannot be used: {reasons[0]}"
    elif kid in health.kids:
        found = f"{found}; the issuer's key of this kid is for another alg"
    names = _one_of([name or "(a key without kid)" for name in health.kids])
    return Explanation(found, f"a key of the issuer's that verifies this alg; it has {names}", settings)


def _signature(header: Members, health: KeySetHealth | None) -> Explanation:
    found = f"a signature that is not by the issuer's key; header: {_said(header, 'kid')}, {_said(header, 'alg')}"
    expected = "a signature by that key, over this very token; keys of another environment may have the same kid"
    return Explanation(found, expected, ("jwks_url",) if health is None or health.age is not None else ("jwks",))


def _unavailable(error: KeySetUnavailableError) -> Explanation:
    found = f"{error.cause}: {causes.meaning(error.cause)}" if error.cause else "no keys"
    more = _OF_CAUSE.get(causes.word(error.cause), ())
    return Explanation(found, "a JWK Set with a key that can verify a signature", ("jwks_url", *more))


# ---- Claims ----


class _Refused(NamedTuple):
    """A claim that is refused, and by which rules."""

    error: ClaimError
    claims: Members
    rules: ClaimRules
    now: float

    @property
    def name(self) -> str:
        return self.error.claim

    @property
    def found(self) -> str:
        return _said(self.claims, self.name)


def _of_claim(refused: _Refused) -> Explanation:
    name, profile = refused.name, refused.rules.profile
    if name in _CLAIMS:
        return _CLAIMS[name](refused)
    # Ownership always names org_id, even if the claim has another name.
    if name in (profile.org_id, "org_id"):
        return _organization(refused)
    if name in ("sub", profile.client_id, *profile.person, *profile.application):
        return Explanation(refused.found, f"a token of an application: {_application(profile)}", _OF_KIND)
    if name in profile.scopes:
        return Explanation(refused.found, "scopes with blanks between them, 2048 characters at most")
    return Explanation(refused.found, "a string")


def _some_claim(claims: Members) -> Explanation:
    found = "; ".join(_said(claims, name) for name in _DECIDING_CLAIMS)
    expected = "what the settings of that server say; `authz verify` with the same settings names the claim"
    return Explanation(found, expected, ("issuer", "audience", "org_id_pattern", *_OF_KIND))


def _audience(refused: _Refused) -> Explanation:
    return Explanation(refused.found, _one_of(sorted(refused.rules.audiences)), ("audience",))


def _id_token(refused: _Refused) -> Explanation:
    return Explanation(f"{refused.name}, which ID tokens have", "an access token")


def _times(refused: _Refused) -> Explanation:
    error, claims, rules, now = refused
    if error.reason == "token_expired":
        return _expired(claims, rules.leeway, now)
    lived = _lifetime(claims) if refused.name == "exp" else None
    if lived is not None and rules.max_lifetime is not None:
        return Explanation(f"exp is {lived:g} s after iat", f"at most {rules.max_lifetime:g} s", ("max_lifetime",))
    if _is_number(claims.get(refused.name)):
        expected = f"not later than now, and {rules.leeway:g} s for clocks that differ"
        return Explanation(_time(claims, refused.name, now), expected, ("leeway",))
    is_for_lifetime = refused.name == "iat" and rules.max_lifetime is not None
    expected = "a number of seconds since 1970, before the year 10000"
    return Explanation(refused.found, expected, ("max_lifetime",) if is_for_lifetime else ())


def _lifetime(claims: Members) -> float | None:
    begin, end = claims.get("iat"), claims.get("exp")
    return end - begin if _is_number(begin) and _is_number(end) else None


def _expired(claims: Members, leeway: float | None, now: float) -> Explanation:
    room = "and the leeway" if leeway is None else f"and {leeway:g} s for clocks that differ"
    return Explanation(_time(claims, "exp", now), f"later than now, {room}", ("leeway",))


def _bound(refused: _Refused) -> Explanation:
    expected = "no cnf, or one with x5t#S256 alone that names the caller's certificate"
    if isinstance(refused.error, PeerUnknownError):
        expected = "a call over TLS with the certificate that the token is bound to, which nothing here can show"
    return Explanation(refused.found, expected)


def _organization(refused: _Refused) -> Explanation:
    rules, name = refused.rules, refused.rules.profile.org_id
    value, found = refused.claims.get(name), _said(refused.claims, name)
    if isinstance(value, str) and rules.org_id.fullmatch(value) and is_identifier(value):
        return Explanation(found, f"an organization that {rules.issuer} may name")
    return Explanation(found, f"an id that matches {rules.org_id.pattern}", ("org_id_pattern", "org_id_claim"))


def _application(profile: TokenProfile) -> str:
    parts = [f"{name} is {value}" for name, value in profile.application.items()]
    parts += [f"no {name}" for name in profile.person]
    parts += [f"sub does not begin with {text}" for text in profile.person_subjects]
    parts += [] if profile.is_client_id_optional else [f"{profile.client_id} is there"]
    return ", ".join(parts).replace(CLIENT_ID, profile.client_id)


_CLAIMS: Mapping[str, Callable[[_Refused], Explanation]] = {
    "aud": _audience,
    "cnf": _bound,
    **dict.fromkeys(("exp", "iat", "nbf"), _times),
    **dict.fromkeys(ID_TOKEN_CLAIMS, _id_token),
}


# ---- Words ----


def _said(members: Members, name: str) -> str:
    if name not in members:
        return f"no {name}"
    return f"{name} is {bounded(json.dumps(members[name]), _MOST_SHOWN)}"


def _time(claims: Members, name: str, now: float) -> str:
    value = claims.get(name)
    if not _is_number(value):
        return _said(claims, name)
    apart = now - value
    when = f"{apart:.0f} s ago" if apart >= 0 else f"in {-apart:.0f} s"
    return f"{name} is {value} ({_utc(value)}), {when} by the clock here ({_utc(now)})"


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in (int, float) and 0 <= value <= MAX_TIME  # type: ignore[operator]


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _one_of(names: list[str]) -> str:
    shown = [bounded(json.dumps(name), _MOST_SHOWN) for name in names[:_MOST_KEYS]]
    more = f" and {len(names) - _MOST_KEYS} more" if len(names) > _MOST_KEYS else ""
    return (" or ".join(shown) or "none") + more


def _segment(segments: list[str], number: int) -> dict[str, Any] | None:
    try:
        return json_object(base64url_decode(segments[number]))
    except (EncodingError, IndexError):
        return None
