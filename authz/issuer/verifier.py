"""Which tokens are good: one issuer's keys and rules, and the memory of what they have verified."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from authz.call.principal import Principal
from authz.call.words import ORG_ID_PATTERN
from authz.errors import ConfigError, KeySetUnavailableError, TokenMalformedError
from authz.issuer.discovery import discover, issuer_endpoint
from authz.issuer.keys import KeySet, KeySetHealth, StaticKeySet, load_jwks
from authz.issuer.remote_keys import RemoteKeySet
from authz.issuer.token_verifier import Expectations, TokenVerifier
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.configuration import extra
from authz.runtime.flow import Flow, pause, run
from authz.runtime.network.transport import Transport
from authz.runtime.network.urls import check_issuer_url
from authz.token.claims import ClaimRules, check_issuer, principal_from
from authz.token.encoding import EncodingError, json_object
from authz.token.jwk import VerificationKey, check_algorithms
from authz.token.jws import CompactJWS, check_signature, digest_of, parse_compact
from authz.token.memory import TokenMemory, Verified, size_of
from authz.token.profiles import ProfileName, TokenProfile, profile_of

Jwks = Mapping[str, Any] | str | os.PathLike[str]

DEFAULT_LEEWAY = 10.0
MAX_LEEWAY = 300.0
CACHE_SECONDS = 300.0
DEFAULT_TOKEN_MEMORY = 16 << 20
"""Bytes; room for about 10,000 tokens of WorkOS."""


class Verifier(TokenVerifier):
    """Verify the access tokens of one issuer.

    ``Verifier(issuer=…, audience=…)`` is enough for WorkOS Connect; nothing is
    fetched before the first token or :meth:`warm_up`.
    One object serves any number of threads and event loops.

    Args:
        issuer: the exact ``iss``: the AuthKit domain, such as ``https://acme.authkit.app``.
        audience: the exact ``aud``, or several of which the token must name one;
            for WorkOS the client ID of the environment.
        discover: look up where the keys are in the issuer's metadata (RFC 8414), when they are first needed.
        discover_hosts: hosts where the keys may be then, besides the issuer's own.
        jwks_url: where the keys are; by default ``{issuer}/oauth2/jwks``.
        jwks: a key set that never changes, instead: a parsed JWK Set, its JSON text, or a path.
        jwks_seed: keys to begin with, in the same forms: then the first calls neither wait for the issuer
            nor fail if it is down when this process starts.
        algorithms: allow-list of signature algorithms; asymmetric ones only.
        leeway: seconds by which clocks may differ, at most 300.
        max_lifetime: seconds that a token may live at the most, or ``None`` for any.
        allow_user_tokens: accept tokens that stand for a person, too. Their ``org_id`` is one that the
            person chose, and anyone who may register a client with the issuer can obtain them.
        allow_missing_kid: accept a token without ``kid`` where the issuer has exactly one key for its ``alg``.
        require_at_jwt: refuse tokens whose ``typ`` is not ``at+jwt`` (RFC 9068 section 4). WorkOS sends no ``typ``.
        org_id_pattern: regular expression that the whole ``org_id`` must match.
        profile: how the issuer writes its tokens: the name of one of :data:`authz.token.profiles.PROFILES`, or one of
            your own. Told apart by it are tokens of applications and of persons.
        max_blocked_threads: how many threads may wait at a time while an unknown ``kid`` is looked up.
        token_memory: how many bytes verified tokens may take; each is remembered until its ``exp``, at most 300 s.
            One of WorkOS counts as 1,700, and takes 900 to 1,200.
        transport: fetches the keys; by default the verifier has its own.
        clock: tells the time.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | Collection[str],
        discover: bool = False,
        discover_hosts: Collection[str] = (),
        jwks_url: str | None = None,
        jwks: Jwks | None = None,
        jwks_seed: Jwks | None = None,
        algorithms: Collection[str] = ("RS256",),
        leeway: float = DEFAULT_LEEWAY,
        max_lifetime: float | None = None,
        allow_user_tokens: bool = False,
        allow_missing_kid: bool = False,
        require_at_jwt: bool = False,
        org_id_pattern: str = ORG_ID_PATTERN,
        profile: TokenProfile | ProfileName = "workos",
        max_blocked_threads: int = 4,
        token_memory: int = DEFAULT_TOKEN_MEMORY,
        transport: Transport | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._rules = ClaimRules(
            issuer=check_issuer_url(issuer),
            audiences=_audiences(audience),
            leeway=_seconds(leeway, "leeway", at_most=MAX_LEEWAY),
            max_lifetime=None if max_lifetime is None else _seconds(max_lifetime, "max_lifetime"),
            allow_user_tokens=allow_user_tokens,
            org_id=_pattern(org_id_pattern),
            profile=profile_of(profile),
        )
        self.issuer = issuer
        self._expected = Expectations(
            self._rules, check_algorithms(algorithms), require_kid=not allow_missing_kid, require_at_jwt=require_at_jwt
        )
        self.clock = clock
        self._time, self._monotonic = clock.time, clock.monotonic
        self._memory = TokenMemory(_positive(token_memory, "token_memory"))
        self.memories = {issuer: self._memory}
        self._keys: KeySet
        if jwks is not None:
            if jwks_url is not None or jwks_seed is not None or discover:
                raise ConfigError(
                    "jwks: a key set that never changes goes with neither jwks_url nor jwks_seed nor discover"
                )
            self._keys = StaticKeySet(load_jwks(jwks, "jwks"))
        else:
            self._keys = RemoteKeySet(
                issuer_endpoint(
                    "jwks_uri",
                    issuer,
                    transport or Transport(),
                    url=jwks_url,
                    setting="jwks_url",
                    discover=discover,
                    discover_hosts=discover_hosts,
                    clock=clock,
                ),
                clock=clock,
                max_blocked_threads=_positive(max_blocked_threads, "max_blocked_threads"),
                seed=None if jwks_seed is None else load_jwks(jwks_seed, "jwks_seed"),
            )

    @classmethod
    def discover(cls, issuer: str, *, allowed_hosts: Collection[str] = (), **options: Any) -> "Verifier":
        """Build a verifier from the issuer's published metadata; blocks while it is fetched.

        Args:
            issuer: the exact issuer.
            allowed_hosts: hosts that the keys may be at, besides the issuer's own.
            options: every argument of the class but ``jwks_url`` and ``jwks``.

        Raises:
            ConfigError: an argument that cannot work, or metadata that must not be believed (RFC 8414 section 3.3).
            KeySetUnavailableError: the metadata cannot be had.

        """
        given = options.pop("transport", None)
        transport = given or Transport()
        try:
            metadata = run(discover(issuer, transport, allowed_hosts=allowed_hosts))
            return cls(issuer=issuer, jwks_url=metadata.jwks_uri, transport=transport, **options)
        except BaseException:
            if given is None:
                # Its thread would otherwise live until the garbage is collected, one for every attempt.
                transport.close()
            raise

    @classmethod
    def from_env(cls) -> "Verifier":
        """Build a verifier from the ``AUTHZ_*`` variables, and from the file that ``AUTHZ_ENV_FILE`` names, if any.

        It needs the extra ``settings``.

        Raises:
            ConfigError: a variable is missing or wrong; the message names it. Several issuers are one for
                :meth:`authz.Verifiers.from_env`.

        """
        with extra("settings", "Verifier.from_env: this needs the extra 'settings'", package="pydantic"):
            from authz.settings.settings import VerifierSettings  # noqa: PLC0415 - the extra's, and slow to load

        settings = VerifierSettings.load()
        if settings.issuers is not None:
            raise ConfigError("issuers: a Verifier is of one issuer; use Verifiers.from_env()")
        return cls(**settings.verifier_options())

    def verify_flow(self, token: str) -> Flow[Principal]:
        """Return the caller that ``token`` names, as a flow; see :meth:`verify`.

        The certificate that the token may be bound to is left to :func:`check_certificate`, so that a refusal for it
        can name the caller.

        Args:
            token: a compact JWS.

        """
        digest = digest_of(token)
        principal = self.remembered(digest)
        if principal is not None:
            return principal
        jws, claims = _read(token, self._expected)
        key = yield from self._keys.find(jws.kid, jws.algorithm)
        return self._verified(jws, claims, key, digest)

    def verify_at_once(self, token: str, digest: bytes) -> Principal | None:
        """Return the caller that ``token`` names, if its key is at hand; see :class:`TokenVerifier`."""
        jws, claims = _read(token, self._expected)
        key = self._keys.known(jws.kid, jws.algorithm)
        return None if key is None else self._verified(jws, claims, key, digest)

    def principal_of(self, claims: Mapping[str, Any]) -> Principal:
        """Return the caller that the payload of a token names; a proxy has checked the signature.

        Every rule about claims is the same as for a token; those about its header are not checked.
        The certificate that the token may be bound to is left to :func:`check_certificate`.

        Args:
            claims: the payload.

        Raises:
            UnauthenticatedError: a claim is not what it must be, or a rule about headers is in force.

        """
        if self._expected.require_at_jwt:
            raise TokenMalformedError("typ must be at+jwt, and a payload has no header that could say so")
        return principal_from(claims, self._rules, self._time())

    def ends_at(self, principal: Principal) -> float:
        """Return the POSIX second from which the token of ``principal`` is refused: ``exp`` and the leeway."""
        return principal.expires_at + self._rules.leeway

    def watch_keys(self, withdrawn: Callable[[str, frozenset[str]], None]) -> None:
        """Have ``withdrawn(issuer, kids)`` called when the issuer withdraws keys; on the thread that fetches them."""
        self._keys.watch(lambda kids: withdrawn(self.issuer, kids))

    def knows_key(self, principal: Principal) -> bool:
        """Say whether the issuer still has the key that ``principal`` was verified by; yes for another issuer's."""
        if principal.issuer != self.issuer:
            return True
        return self._keys.knows(principal.key_id, principal.key_thumbprint)

    def key_age(self, principal: Principal) -> float | None:
        """Return the seconds since the keys of ``principal``'s issuer were fetched; ``None`` for another issuer's."""
        return self._keys.age() if principal.issuer == self.issuer else None

    def _verified(self, jws: CompactJWS, claims: dict[str, Any], key: VerificationKey, digest: bytes) -> Principal:
        """Return the caller that a token names whose key was found, and remember it."""
        # Before the claims: an error must not report claims that are not signed.
        check_signature(jws, key)
        now = self._time()
        principal = principal_from(claims, self._rules, now, key_id=key.kid or "", key_thumbprint=key.thumbprint)
        # On both clocks: it has come when the first of them reaches it.
        seconds = min(principal.expires_at + self._rules.leeway - now, CACHE_SECONDS)
        size = size_of(principal.claims, jws.payload)
        self._memory.remember(digest, Verified(principal, key, now + seconds, self._monotonic() + seconds, size), now)
        return principal

    def remembered(self, digest: bytes) -> Principal | None:
        """Return the caller that a token names, if it was verified before and is still good.

        Args:
            digest: :func:`authz.token.jws.digest_of` the token.

        """
        verified = self._memory.recall(digest)
        if verified is None:
            return None
        # By both clocks, for one of them may be set.
        is_over = self._time() >= verified.until_time or self._monotonic() >= verified.until_monotonic
        return None if is_over or not self._keys.holds(verified.key) else verified.principal

    def warm_up_flow(self, timeout: float = 5.0) -> Flow[None]:
        """Fetch the issuer's keys, as a flow; see :meth:`warm_up`."""
        deadline = self._monotonic() + timeout
        while True:
            try:
                return (yield from self._keys.load())
            except KeySetUnavailableError as error:
                if self._monotonic() + error.retry_after >= deadline:
                    raise
                seconds = error.retry_after
            yield from pause(seconds)

    def health(self) -> Mapping[str, KeySetHealth]:
        """Return the state of the issuer's keys, by issuer."""
        return {self.issuer: self._keys.health()}

    def expectations(self, _issuer: object = None) -> Expectations:
        """Return what tokens must be."""
        return self._expected

    def close(self) -> None:
        """Stop fetching keys."""
        self._keys.close()


def _read(token: str, expected: Expectations) -> tuple[CompactJWS, dict[str, Any]]:
    """Return a token and its claims, of which only ``iss`` is checked: it decides whose keys are asked for."""
    jws = parse_compact(
        token, expected.algorithms, require_kid=expected.require_kid, require_at_jwt=expected.require_at_jwt
    )
    try:
        claims = json_object(jws.payload)
    except EncodingError as error:
        raise TokenMalformedError(str(error)) from error
    # Before any fetch: a token that names another issuer must not cause one.
    check_issuer(claims, expected.rules)
    return jws, claims


def _audiences(audience: str | Collection[str]) -> frozenset[str]:
    # None too, which os.environ.get() gives for a variable that is not set.
    audiences = frozenset([audience] if isinstance(audience, str) else audience or ())
    if not all(audiences) or not audiences:
        raise ConfigError(
            "audience: give the value of aud that tokens for this API carry (for WorkOS the environment's client ID)"
        )
    return audiences


def _seconds(value: float, setting: str, *, at_most: float = float("inf")) -> float:
    if not 0 <= value <= at_most or value == float("inf"):
        limit = "" if at_most == float("inf") else f" up to {at_most:g}"
        raise ConfigError(f"{setting}: {value!r} is not a number of seconds from 0{limit}")
    return float(value)


def _positive(value: int, setting: str) -> int:
    if value < 1:
        raise ConfigError(f"{setting}: {value!r} must be 1 or more")
    return value


def _pattern(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.ASCII)
    except re.error as error:
        raise ConfigError(f"org_id_pattern: {pattern!a} is not a regular expression ({error.msg})") from error
