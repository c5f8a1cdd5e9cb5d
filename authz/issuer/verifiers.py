"""Several issuers side by side, each with its own keys and rules."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from authz.call.peer import Peer
from authz.call.principal import Principal
from authz.decisions.decision import Evidence
from authz.errors import ClaimError, ConfigError, TokenMalformedError, UnavailableError
from authz.issuer.keys import KeySetHealth
from authz.issuer.verifier import Expectations, Verifier
from authz.organizations.ownership import Organizations, Ownership
from authz.runtime.clock import Clock
from authz.runtime.flow import Flow, arun, run
from authz.token.encoding import EncodingError, base64url_decode, json_object
from authz.token.jws import digest_of

if TYPE_CHECKING:
    from authz.settings.settings import VerifierSettings


class Verifiers:
    """Verify tokens of several issuers; each is judged by the verifier of the issuer that it names.

    A key is looked up in that issuer's set only (RFC 8725 section 3.8), so
    that no issuer can speak for another, whatever ``kid`` it writes. An
    organization belongs to one issuer (:class:`authz.organizations.ownership.Ownership`),
    and a token in which another names it is refused.
    Used in every place where a :class:`authz.Verifier` is.

    Args:
        verifiers: one for each issuer.
        organizations: which organizations each issuer may name, by issuer: a regular expression that the whole
            ``org_id`` must match, or a list of ids, which goes before any pattern. An id that the patterns of two
            issuers match is refused from both. Needed where there are several issuers.
        shared_organizations: let every issuer name every organization, with its tenant, policy and quota,
            and every client: only where each of them is believed about all customers of the others.

    Raises:
        ConfigError: no verifier, or two for one issuer; several of them, and neither of the options, or both.

    """

    def __init__(
        self,
        *verifiers: Verifier,
        organizations: Mapping[str, Organizations] | None = None,
        shared_organizations: bool = False,
    ) -> None:
        self._by_issuer = {verifier.issuer: verifier for verifier in verifiers}
        if not verifiers or len(self._by_issuer) != len(verifiers):
            raise ConfigError("verifiers: give at least one, and one only for each issuer")
        if not isinstance(shared_organizations, bool):
            # The "false" of a variable must not stand for yes.
            raise ConfigError("shared_organizations: must be True or False")
        self.ownership = self._ownership(organizations, is_shared=shared_organizations)
        """Which organizations each issuer may name; ``None`` where any may name all."""

    @classmethod
    def from_env(cls) -> "Verifiers":
        """Build verifiers from the ``AUTHZ_*`` variables: of all issuers in the file ``AUTHZ_ISSUERS``, or of one.

        It needs the extra ``server``.

        Raises:
            ConfigError: a variable is missing or wrong, or something in the file; the message names it.

        """
        from authz.settings.settings import VerifierSettings  # noqa: PLC0415 - pydantic is the extra's, and slow to load

        verifier = verifier_of(VerifierSettings.load())
        return cls(verifier) if isinstance(verifier, Verifier) else verifier

    @property
    def clock(self) -> Clock:
        """The clock of the first verifier."""
        return next(iter(self._by_issuer.values())).clock

    def verify(self, token: str, peer: Peer | None = None) -> Principal:
        """Return whom ``token`` names; see :meth:`authz.Verifier.verify`."""
        return run(self.verify_flow(token, peer))

    async def averify(self, token: str, peer: Peer | None = None) -> Principal:
        """Return whom ``token`` names; see :meth:`authz.Verifier.verify`."""
        return await arun(self.verify_flow(token, peer))

    def verify_flow(self, token: str, peer: Peer | None = None, evidence: Evidence | None = None) -> Flow[Principal]:
        """Return whom ``token`` names, as a flow; see :meth:`authz.Verifier.verify_flow`."""
        digest = digest_of(token)
        for verifier in self._by_issuer.values():
            if verifier.remembered(digest) is not None:
                return (yield from verifier.verify_flow(token, peer, evidence, self.ownership))
        verifier = self._of_issuer(_claimed_issuer(token))
        return (yield from verifier.verify_flow(token, peer, evidence, self.ownership))

    def principal_of(self, claims: Mapping[str, Any], peer: Peer | None = None) -> Principal:
        """Return whom a payload names; see :meth:`authz.Verifier.principal_of`."""
        return self._of_issuer(claims.get("iss")).principal_of(claims, peer, self.ownership)

    def ends_at(self, principal: Principal) -> float:
        """Return the POSIX second from which the token of ``principal`` is refused, by its issuer's rules."""
        verifier = self._by_issuer.get(principal.issuer)
        return principal.expires_at if verifier is None else verifier.ends_at(principal)

    def watch_keys(self, withdrawn: Callable[[str, frozenset[str]], None]) -> None:
        """Have ``withdrawn(issuer, kids)`` called when an issuer takes back keys; on a thread that fetches."""
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

    def warm_up(self, timeout: float = 5.0) -> None:
        """Have every issuer's keys; see :meth:`authz.Verifier.warm_up`.

        Raises:
            KeySetUnavailableError: those of one could not be had; those of the others were asked for.

        """
        run(self.warm_up_flow(timeout))

    async def awarm_up(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - the name of its twin
        """Have every issuer's keys; see :meth:`warm_up`."""
        await arun(self.warm_up_flow(timeout))

    def warm_up_flow(self, timeout: float = 5.0) -> Flow[None]:
        """Have every issuer's keys, as a flow; see :meth:`warm_up`."""
        error: UnavailableError | None = None
        for verifier in self._by_issuer.values():
            try:
                yield from verifier.warm_up_flow(timeout)
            except UnavailableError as failure:
                error = failure
        if error is not None:
            raise error

    def health(self) -> Mapping[str, KeySetHealth]:
        """Say how the issuers' keys do, by issuer."""
        return {issuer: health for verifier in self._by_issuer.values() for issuer, health in verifier.health().items()}

    def expectations(self, issuer: object = None) -> Expectations | None:
        """Return what tokens of ``issuer`` must be; ``None`` if it is none of those that are configured."""
        verifier = self._by_issuer.get(issuer) if isinstance(issuer, str) else None
        return None if verifier is None else verifier.expectations()

    def close(self) -> None:
        """Stop fetching keys."""
        for verifier in self._by_issuer.values():
            verifier.close()

    def _ownership(self, organizations: Mapping[str, Organizations] | None, *, is_shared: bool) -> Ownership | None:
        if organizations is None:
            if len(self._by_issuer) > 1 and not is_shared:
                raise ConfigError(
                    "verifiers: say which organizations each issuer may name: organizations={issuer: a pattern or a "
                    "list of ids}; or, if each may name those of all others, shared_organizations=True"
                )
            return None
        if is_shared:
            raise ConfigError("organizations and shared_organizations: give one of them")
        for issuer in self._by_issuer:
            if issuer not in organizations:
                raise ConfigError(f"organizations: every issuer needs its own, and nothing is said of {issuer}")
        for issuer in organizations:
            if issuer not in self._by_issuer:
                raise ConfigError(f"organizations: {issuer!a} is no issuer of these verifiers")
        return Ownership(organizations)

    def _of_issuer(self, issuer: object) -> Verifier:
        verifier = self._by_issuer.get(issuer) if isinstance(issuer, str) else None
        if verifier is None:
            raise ClaimError("iss", "the token is from an issuer that is not configured")
        return verifier


def _claimed_issuer(token: str) -> object:
    # Not believed: it only chooses who checks, and that verifier compares it again.
    segments = token.split(".")
    try:
        return json_object(base64url_decode(segments[1])).get("iss")
    except (EncodingError, IndexError) as error:
        raise TokenMalformedError("not a compact JWS of three segments") from error


def verifier_of(settings: "VerifierSettings") -> Verifier | Verifiers:
    """Build the verifier of the issuer that is set, or of all that are listed.

    Raises:
        ConfigError: a setting is missing or cannot work, or something in the file of issuers.

    """
    listed = settings.listed()
    if listed is None:
        return Verifier(**settings.verifier_options())
    verifiers = []
    for index in range(len(listed.listed)):
        with listed.entry(index) as each:
            verifiers.append(Verifier(**each.verifier_options()))
    try:
        return Verifiers(
            *verifiers, organizations=listed.organizations, shared_organizations=listed.are_organizations_shared
        )
    except ConfigError as error:
        raise ConfigError(f"{listed.document.source}: {error}") from None
