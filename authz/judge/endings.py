"""When open streams end: what admitted a stream has been withdrawn, or the policy in force would not admit it."""

import math

from authz.call.call import Call
from authz.call.principal import ANONYMOUS, Principal
from authz.errors import (
    AuthzError,
    KeyNotFoundError,
    PeerUnknownError,
    ResourceExhaustedError,
    UnavailableError,
    suspended,
)
from authz.issuer.token_verifier import TokenVerifier
from authz.judge.in_force import InForce
from authz.judge.orders.standing import Standing
from authz.judge.organizations import Organizations
from authz.judge.streams import OpenStreams, Places, Stream
from authz.runtime.flow import Flow


class Endings:
    """Take in streams that have been authorized, and end them when they must end.

    Args:
        streams: those that are open.
        verifier: says which keys an issuer has withdrawn.
        standing: what the operator has revoked and suspended.
        organizations: know the groups of organizations.
        in_force: the policy.

    Attributes:
        streams: those that are open.

    """

    def __init__(
        self,
        streams: OpenStreams,
        verifier: TokenVerifier,
        standing: Standing,
        organizations: Organizations,
        in_force: InForce,
    ) -> None:
        self.streams, self._verifier, self._standing = streams, verifier, standing
        self._organizations, self._in_force = organizations, in_force
        # The keys that an issuer withdrew last, by issuer.
        self._withdrawn: dict[str, frozenset[str]] = {}
        self._questions = (standing.refusal_of, self.refusal, self._refusal_for_key)
        verifier.watch_keys(self._end_keys)

    def open(self, stream: Stream, principal: Principal, until: float, call: Call | None = None) -> Flow[None] | None:
        """Take in a stream that has been authorized, and end it when it must end.

        Args:
            stream: the stream; the door gives it to :meth:`authz.judge.streams.OpenStreams.close` when it is over.
            principal: who makes it.
            until: when it ends at the latest, in POSIX seconds, or infinite.
            call: the call that it is, about which every other policy is asked anew; without it only whether the
                organization is suspended.

        Returns:
            ``None`` where that is done; otherwise the flow that does it, which may have to wait, because the
            organization's streams are limited and other processes count them as well.

        Raises:
            ResourceExhaustedError: its organization has as many streams open as it may; this one is not taken in.
            UnavailableError: that cannot be said now.

        """
        at_most = self._at_most(principal)
        if self.streams.places is not None and at_most < math.inf:
            return self._open_in_place(self.streams.places, stream, principal, until, call)
        self._open(stream, principal, until, call, at_most)
        return None

    def _open_in_place(
        self, places: Places, stream: Stream, principal: Principal, until: float, call: Call | None
    ) -> Flow[None]:
        at_most = yield from places.take(stream, principal.org_id, int(self._at_most(principal)))
        try:
            self._open(stream, principal, until, call, at_most)
        except ResourceExhaustedError:
            places.give_back(stream)
            raise

    def _open(self, stream: Stream, principal: Principal, until: float, call: Call | None, at_most: float) -> None:
        self.streams.open(stream, principal, until, at_most, call=call)
        # What admitted it may have been withdrawn after the verdict and before the line above.
        self.streams.judge_one(stream, self._questions)

    def are_limited(self, principal: Principal) -> bool:
        """Say whether the plan of ``principal``'s organization limits how many streams it may have open.

        Raises:
            ResourceExhaustedError: it has as many open now, and another one need not be tried.

        """
        at_most = self._at_most(principal)
        if at_most == math.inf:
            return False
        self.streams.check(principal.org_id, at_most)
        if self.streams.places is not None:
            self.streams.places.check(principal.org_id)
        return True

    def refusal(self, call: Call | None, principal: Principal) -> AuthzError | None:
        """Return why the policy in force would not admit a call that it or another one has admitted, if so.

        Args:
            call: the call; without it only whether the organization is suspended counts.
            principal: who makes it.

        """
        policy, _isolation, public = self._in_force.now
        if policy is None or principal is ANONYMOUS or (call is not None and call.method in public):
            return None
        try:
            organization = self._organizations.recall(principal.org_id, policy)
            if call is None:
                return suspended() if organization.is_suspended else None
            policy.admit(call, principal, organization)
        except PeerUnknownError:
            # The caller may call again; then its door will find out the peer.
            return UnavailableError("the policy has changed, and now depends on the peer")
        except AuthzError as error:
            return error
        return None

    def _at_most(self, principal: Principal) -> float:
        quota = self._in_force.now.quota_of(principal)
        return math.inf if quota is None or quota.concurrent_streams is None else quota.concurrent_streams

    def _end_keys(self, issuer: str, kids: frozenset[str]) -> None:
        # The keys that were withdrawn before are forgotten here.
        self.streams.settle()
        self._withdrawn[issuer] = kids
        self.streams.judge(self._refusal_for_key)

    def _refusal_for_key(self, _call: Call | None, principal: Principal) -> AuthzError | None:
        # Whose signature was verified here, its key was known then. Of others only a key that was withdrawn counts.
        was_known = principal.key_thumbprint or principal.key_id in self._withdrawn.get(principal.issuer, ())
        return KeyNotFoundError() if was_known and not self._verifier.knows_key(principal) else None
