"""Several issuers side by side, each with its own keys and rules; and none."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from authz.call.principal import Principal
from authz.errors import ClaimError, ConfigError, TokenMalformedError, UnauthenticatedError, UnavailableError
from authz.issuer.keys import KeySetHealth
from authz.issuer.token_verifier import Expectations, TokenVerifier
from authz.issuer.verifier import DEFAULT_LEEWAY, DEFAULT_TOKEN_MEMORY, Verifier
from authz.organizations.ownership import Organizations, Ownership
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.configuration import extra
from authz.runtime.flow import Flow
from authz.token.encoding import EncodingError, base64url_decode, json_object
from authz.token.jws import digest_of

if TYPE_CHECKING:
    from authz.settings.issuers import Issuers
    from authz.settings.settings import VerifierSettings


class Verifiers(TokenVerifier):
    """Verify tokens of several issuers; each is judged by the verifier of the issuer that it names.

    A key is looked up in that issuer's set only (RFC 8725 section 3.8), so
    that no issuer can speak for another by any ``kid``. An
    organization belongs to one issuer (:class:`authz.organizations.ownership.Ownership`),
    and a token in which another names it is refused.
    It takes the place of a :class:`authz.Verifier` everywhere.

    Args:
        verifiers: one for each issuer.
        organizations: which organizations each issuer may name, by issuer: a regular expression that the whole
            ``org_id`` must match, or a list of ids, which goes before any pattern. An id that the patterns of two
            issuers match is refused from both. Needed where there are several issuers.
        shared_organizations: let every issuer name every organization, with its tenant, policy and quota, and every
            client: only where each issuer may speak for all customers of the others.

    Raises:
        ConfigError: no verifier, or two for one issuer; several of them, and neither of the options, or both.

    """

    def __init__(
        self,
        *verifiers: Verifier,
        organizations: Mapping[str, Organizations] | None = None,
        shared_organizations: bool = False,
    ) -> None:
        self._by_issuer: Mapping[str, Verifier] = {verifier.issuer: verifier for verifier in verifiers}
        if not verifiers or len(self._by_issuer) != len(verifiers):
            raise ConfigError("verifiers: give at least one, and one only for each issuer")
        if not isinstance(shared_organizations, bool):
            # The "false" of a variable must not stand for yes.
            raise ConfigError("shared_organizations: must be True or False")
        self.clock: Clock = verifiers[0].clock
        self.memories = {issuer: verifier.memories[issuer] for issuer, verifier in self._by_issuer.items()}
        self.ownership = _ownership(self._by_issuer, organizations, is_shared=shared_organizations)

    @classmethod
    def from_env(cls) -> "Verifiers":
        """Build verifiers from the ``AUTHZ_*`` variables: of all issuers in the file ``AUTHZ_ISSUERS``, or of one.

        It needs the extra ``settings``.

        Raises:
            ConfigError: a variable is missing or wrong, or something in the file; the message names it.

        """
        with extra("settings", "Verifiers.from_env: this needs the extra 'settings'", package="pydantic"):
            from authz.settings.settings import VerifierSettings  # noqa: PLC0415 - the extra's, and slow to load

        verifier = verifier_of(VerifierSettings.load())
        return cls(verifier) if isinstance(verifier, Verifier) else verifier

    def verify_flow(self, token: str) -> Flow[Principal]:
        """Return the caller that ``token`` names; see :class:`TokenVerifier`."""
        principal = self.remembered(digest_of(token))
        if principal is not None:
            return principal
        principal = yield from self._of_issuer(_claimed_issuer(token)).verify_flow(token)
        return self._owned(principal)

    def remembered(self, digest: bytes) -> Principal | None:
        """Return the caller that a token names, if it was verified before; see :class:`TokenVerifier`."""
        for verifier in self._by_issuer.values():
            principal = verifier.remembered(digest)
            if principal is not None:
                return self._owned(principal)
        return None

    def verify_at_once(self, token: str, digest: bytes) -> Principal | None:
        """Return the caller that ``token`` names, if the key is at hand; see :class:`TokenVerifier`."""
        principal = self._of_issuer(_claimed_issuer(token)).verify_at_once(token, digest)
        return None if principal is None else self._owned(principal)

    def principal_of(self, claims: Mapping[str, Any]) -> Principal:
        """Return the caller that a payload names; see :class:`TokenVerifier`."""
        return self._owned(self._of_issuer(claims.get("iss")).principal_of(claims))

    def ends_at(self, principal: Principal) -> float:
        """Return the POSIX second from which the token of ``principal`` is refused, by its issuer's rules."""
        verifier = self._by_issuer.get(principal.issuer)
        return principal.expires_at if verifier is None else verifier.ends_at(principal)

    def watch_keys(self, withdrawn: Callable[[str, frozenset[str]], None]) -> None:
        """Have ``withdrawn(issuer, kids)`` called when an issuer withdraws keys; on the thread that fetches them."""
        for verifier in self._by_issuer.values():
            verifier.watch_keys(withdrawn)

    def knows_key(self, principal: Principal) -> bool:
        """Say whether the issuer of ``principal`` still has the key that it was verified by."""
        verifier = self._by_issuer.get(principal.issuer)
        return verifier is None or verifier.knows_key(principal)

    def key_age(self, principal: Principal) -> float | None:
        """Return the seconds since the keys of ``principal``'s issuer were fetched; ``None`` if they were not."""
        verifier = self._by_issuer.get(principal.issuer)
        return None if verifier is None else verifier.key_age(principal)

    def warm_up_flow(self, timeout: float = 5.0) -> Flow[None]:
        """Fetch every issuer's keys, as a flow; see :meth:`warm_up`."""
        error: UnavailableError | None = None
        for verifier in self._by_issuer.values():
            try:
                yield from verifier.warm_up_flow(timeout)
            except UnavailableError as failure:
                error = failure
        if error is not None:
            raise error

    def health(self) -> Mapping[str, KeySetHealth]:
        """Return the state of the issuers' keys, by issuer."""
        return {issuer: health for verifier in self._by_issuer.values() for issuer, health in verifier.health().items()}

    def expectations(self, issuer: object = None) -> Expectations | None:
        """Return what tokens of ``issuer`` must be; ``None`` if it is none of those that are configured."""
        verifier = self._by_issuer.get(issuer) if isinstance(issuer, str) else None
        return None if verifier is None else verifier.expectations()

    def close(self) -> None:
        """Stop fetching keys."""
        for verifier in self._by_issuer.values():
            verifier.close()

    def _owned(self, principal: Principal) -> Principal:
        """Return ``principal`` if its issuer may name its organization.

        Raises:
            ClaimError: the organization belongs to another issuer.

        """
        if self.ownership is not None:
            self.ownership.check(principal)
        return principal

    def _of_issuer(self, issuer: object) -> Verifier:
        verifier = self._by_issuer.get(issuer) if isinstance(issuer, str) else None
        if verifier is None:
            raise ClaimError("iss", "the token is from an issuer that is not configured")
        return verifier


def _ownership(
    issuers: Collection[str], organizations: Mapping[str, Organizations] | None, *, is_shared: bool
) -> Ownership | None:
    if organizations is None:
        if len(issuers) > 1 and not is_shared:
            raise ConfigError(
                "verifiers: say which organizations each issuer may name: organizations={issuer: a pattern or a "
                "list of ids}; or, if each may name those of all others, shared_organizations=True"
            )
        return None
    if is_shared:
        raise ConfigError("organizations and shared_organizations: give one of them")
    for issuer in issuers:
        if issuer not in organizations:
            raise ConfigError(f"organizations: every issuer needs its own, and nothing is said of {issuer}")
    for issuer in organizations:
        if issuer not in issuers:
            raise ConfigError(f"organizations: {issuer!a} is no issuer of these verifiers")
    return Ownership(organizations)


def _claimed_issuer(token: str) -> object:
    # Not believed yet: it only chooses the verifier, which compares it again.
    segments = token.split(".")
    try:
        return json_object(base64url_decode(segments[1])).get("iss")
    except (EncodingError, IndexError) as error:
        raise TokenMalformedError("not a compact JWS of three segments") from error


class NoTokens(Verifiers):
    """Verifiers of no issuer, for where only proxies are believed: no token is good."""

    def __init__(self) -> None:
        self._by_issuer, self.memories, self.ownership, self.clock = {}, {}, None, SYSTEM_CLOCK

    def verify_flow(self, token: str) -> Flow[Principal]:  # noqa: ARG002 - the name in the protocol
        """Refuse any token."""
        raise UnauthenticatedError("only the peers of trust are believed here, and no tokens")
        yield  # a flow that never waits

    def verify_at_once(self, token: str, digest: bytes) -> None:  # noqa: ARG002 - the names in the protocol
        """Refuse any token."""
        raise UnauthenticatedError("only the peers of trust are believed here, and no tokens")

    def principal_of(self, claims: Mapping[str, Any]) -> Principal:  # noqa: ARG002 - the name in the protocol
        """Refuse any payload."""
        raise UnauthenticatedError("only the peers of trust are believed here, and no payloads")

    def ends_at(self, principal: Principal) -> float:
        """Return the POSIX second from which the word of the proxy about ``principal`` is refused."""
        return principal.expires_at + DEFAULT_LEEWAY


def verifier_of(
    settings: "VerifierSettings", listed: "Issuers | None" = None, token_memory: int = DEFAULT_TOKEN_MEMORY
) -> Verifier | Verifiers:
    """Build the verifier of the issuer that is set, or of all that are listed.

    Args:
        settings: the settings.
        listed: the file of issuers, if it has been read already.
        token_memory: how many bytes verified tokens may take, those of all issuers together.

    Raises:
        ConfigError: a setting is missing or cannot work, or something in the file of issuers.

    """
    listed = listed or settings.listed()
    if listed is None:
        return Verifier(**settings.verifier_options(), token_memory=token_memory)
    # In equal shares, so that the tokens of one issuer leave those of another alone.
    share = max(1, token_memory // len(listed.listed))
    verifiers = listed.made(lambda each: Verifier(**each.verifier_options(), token_memory=share))
    try:
        return Verifiers(
            *verifiers, organizations=listed.organizations, shared_organizations=listed.are_organizations_shared
        )
    except ConfigError as error:
        raise ConfigError(f"{listed.document.source}: {error}") from None
