"""What the judge asks of a verifier, be it of one issuer, of several, or of none."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from authz.call.peer import Peer
from authz.call.principal import Principal
from authz.errors import ClaimError, PeerUnknownError
from authz.issuer.keys import KeySetHealth
from authz.organizations.ownership import Ownership
from authz.runtime.clock import Clock
from authz.runtime.flow import Flow, arun, run
from authz.token.claims import ClaimRules
from authz.token.jws import digest_of
from authz.token.memory import TokenMemory


class Expectations(NamedTuple):
    """What a verifier wants of a token, to explain why it has refused one."""

    rules: ClaimRules
    algorithms: frozenset[str]
    require_kid: bool
    require_at_jwt: bool


class TokenVerifier(ABC):
    """Verify tokens, and know the keys that they were verified by; for threads and for event loops."""

    clock: Clock
    """Where the time comes from."""

    memories: Mapping[str, TokenMemory]
    """What is remembered of verified tokens, by issuer."""

    ownership: Ownership | None = None
    """Which organizations each issuer may name; ``None`` where any issuer may name all."""

    def verify(self, token: str, peer: Peer | None = None) -> Principal:
        """Return the caller that ``token`` names; blocks for up to 2 s where keys must be fetched.

        Args:
            token: a compact JWS.
            peer: the one that sent it. A token that is bound to a certificate is refused without (RFC 8705 section 3).

        Raises:
            UnauthenticatedError: the token is not good; its subclass and ``reason`` say why.
            UnavailableError: the issuer's keys cannot be had, so there is no verdict.

        """
        principal = _at_once(self, token)
        if principal is None:
            principal = run(self.verify_flow(token))
        if principal.certificate:
            check_certificate(principal, peer)
        return principal

    async def averify(self, token: str, peer: Peer | None = None) -> Principal:
        """Return the caller that ``token`` names; see :meth:`verify`."""
        principal = _at_once(self, token)
        if principal is None:
            principal = await arun(self.verify_flow(token))
        if principal.certificate:
            check_certificate(principal, peer)
        return principal

    def warm_up(self, timeout: float = 5.0) -> None:
        """Fetch the keys of every issuer, so that no call must wait for them.

        Args:
            timeout: seconds during which a failed fetch is tried again, 1 s later and then at doubling intervals.

        Raises:
            KeySetUnavailableError: those of an issuer could not be fetched; those of the others were tried, too. The
                next call tries again.

        """
        run(self.warm_up_flow(timeout))

    async def awarm_up(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - the name of its twin
        """Fetch the keys; see :meth:`warm_up`."""
        await arun(self.warm_up_flow(timeout))

    @abstractmethod
    def verify_flow(self, token: str) -> Flow[Principal]:
        """Return the caller that ``token`` names, as a flow.

        The certificate that the token may be bound to is left to :func:`check_certificate`.

        Raises:
            UnauthenticatedError: the token is not good, or names an organization of another issuer.
            UnavailableError: the issuer's keys cannot be had, so there is no verdict.

        """

    @abstractmethod
    def remembered(self, digest: bytes) -> Principal | None:
        """Return what :meth:`verify_flow` would, if it has verified the token before; that takes no flow.

        Args:
            digest: :func:`authz.token.jws.digest_of` the token.

        """

    @abstractmethod
    def verify_at_once(self, token: str, digest: bytes) -> Principal | None:
        """Return what :meth:`verify_flow` would, without a flow; ``None`` where that may have to wait.

        What is remembered is not asked: that is for :meth:`remembered`.

        Args:
            token: a compact JWS.
            digest: :func:`authz.token.jws.digest_of` the token.

        Raises:
            UnauthenticatedError: what :meth:`verify_flow` would raise.

        """

    @abstractmethod
    def principal_of(self, claims: Mapping[str, Any]) -> Principal:
        """Return the caller that the payload of a token names; a proxy has checked the signature.

        The certificate is not checked, as in :meth:`verify_flow`.

        Raises:
            UnauthenticatedError: a claim is not what it must be, or the organization is another issuer's.

        """

    @abstractmethod
    def ends_at(self, principal: Principal) -> float:
        """Return the POSIX second from which calls of ``principal`` are refused, unless it shows a newer token."""

    @abstractmethod
    def watch_keys(self, withdrawn: Callable[[str, frozenset[str]], None]) -> None:
        """Have ``withdrawn(issuer, kids)`` called when an issuer withdraws keys; on the thread that fetches them."""

    @abstractmethod
    def knows_key(self, principal: Principal) -> bool:
        """Say whether the issuer still has the key that ``principal`` was verified by; yes if its keys are not ours."""

    @abstractmethod
    def key_age(self, principal: Principal) -> float | None:
        """Return the seconds since the keys of ``principal``'s issuer were fetched; ``None`` if they were not."""

    @abstractmethod
    def health(self) -> Mapping[str, KeySetHealth]:
        """Return the state of the keys, by issuer, for every issuer whose tokens are good here."""

    @abstractmethod
    def warm_up_flow(self, timeout: float = 5.0) -> Flow[None]:
        """Fetch the keys of every issuer, as a flow; see :meth:`authz.Verifier.warm_up`."""

    @abstractmethod
    def expectations(self, issuer: object = None) -> Expectations | None:
        """Return what tokens of ``issuer`` must be; ``None`` if its tokens are not good here."""

    @abstractmethod
    def close(self) -> None:
        """Stop fetching keys."""


def _at_once(verifier: TokenVerifier, token: str) -> Principal | None:
    digest = digest_of(token)
    principal = verifier.remembered(digest)
    return verifier.verify_at_once(token, digest) if principal is None else principal


def check_certificate(principal: Principal, peer: Peer | None) -> None:
    """Check that ``peer`` has the certificate that the token of ``principal`` is bound to (RFC 8705 section 3).

    Raises:
        PeerUnknownError: ``peer`` is ``None``.
        ClaimError: the token is bound to another certificate.

    """
    if peer is None:
        raise PeerUnknownError("cnf")
    if peer.certificate != principal.certificate:
        raise ClaimError("cnf", "the token is bound to another certificate than the caller's")
