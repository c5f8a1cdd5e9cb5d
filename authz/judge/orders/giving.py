"""Orders as a program gives them: by names that a type checker knows, each about exactly one thing."""

from collections.abc import Mapping
from typing import Any, overload

from authz.errors import ConfigError
from authz.judge.orders.operator import Operator
from authz.judge.orders.order import Kind, Order, Verb

_KINDS: dict[str, Kind] = {"token_id": "token", "client_id": "client", "org_id": "organization", "key_id": "key"}


class Giving:
    """Gives the orders of the program that the judge runs in; a base of :class:`authz.Authorizer`.

    Attributes:
        operator: takes the orders.

    """

    operator: Operator

    @overload
    def revoke(
        self,
        *,
        token_id: str,
        issuer: str | None = None,
        until: float | None = None,
        reason: str = "",
        by: str = "",
    ) -> None: ...

    @overload
    def revoke(
        self,
        *,
        client_id: str,
        issuer: str | None = None,
        issued_before: float | None = None,
        until: float | None = None,
        reason: str = "",
        by: str = "",
    ) -> None: ...

    @overload
    def revoke(
        self,
        *,
        org_id: str,
        issuer: str | None = None,
        issued_before: float | None = None,
        until: float | None = None,
        reason: str = "",
        by: str = "",
    ) -> None: ...

    @overload
    def revoke(
        self,
        *,
        key_id: str,
        issuer: str | None = None,
        issued_before: float | None = None,
        until: float | None = None,
        reason: str = "",
        by: str = "",
    ) -> None: ...

    def revoke(
        self,
        *,
        token_id: str | None = None,
        client_id: str | None = None,
        org_id: str | None = None,
        key_id: str | None = None,
        issuer: str | None = None,
        issued_before: float | None = None,
        until: float | None = None,
        reason: str = "",
        by: str = "",
    ) -> None:
        """Refuse every call of a token, an application, an organization or a key, and end its open streams.

        Takes effect at once, in this process; and where a :class:`authz.store.SharedState` shares it, in every other.
        Give exactly one of the first four.

        Args:
            token_id: the ``jti`` of a token.
            client_id: the id of an application.
            org_id: the id of an organization.
            key_id: the ``kid`` of a key that signs tokens.
            issuer: the one that has named it so, if only one issuer's is meant.
            issued_before: refuse only tokens that were issued before this POSIX time, so that the caller can get a
                new one; a token that does not say when it was issued is refused. Not with ``token_id``.
            until: when this lapses, in POSIX seconds; for a token, when it has expired: by default after a year.
            reason: why, for people.
            by: who says so, for people.

        Raises:
            ConfigError: not exactly one of them, an empty one, or an issuer whose tokens are not taken here.

        """
        what = {"token_id": token_id, "client_id": client_id, "org_id": org_id, "key_id": key_id}
        more = {"issuer": issuer, "issued_before": issued_before, "until": until, "reason": reason, "by": by}
        self.operator.order(_order("revoke", what, more))

    @overload
    def reinstate(self, *, token_id: str, issuer: str | None = None, reason: str = "", by: str = "") -> None: ...

    @overload
    def reinstate(self, *, client_id: str, issuer: str | None = None, reason: str = "", by: str = "") -> None: ...

    @overload
    def reinstate(self, *, org_id: str, issuer: str | None = None, reason: str = "", by: str = "") -> None: ...

    @overload
    def reinstate(self, *, key_id: str, issuer: str | None = None, reason: str = "", by: str = "") -> None: ...

    def reinstate(
        self,
        *,
        token_id: str | None = None,
        client_id: str | None = None,
        org_id: str | None = None,
        key_id: str | None = None,
        issuer: str | None = None,
        reason: str = "",
        by: str = "",
    ) -> None:
        """Take back what :meth:`revoke` did, for every issuer or for the one named; streams that it ended stay ended.

        Args:
            token_id: see :meth:`revoke`, as of all others.
            client_id: the id of an application.
            org_id: the id of an organization.
            key_id: the ``kid`` of a key.
            issuer: the one that has named it so.
            reason: why, for people.
            by: who says so, for people.

        Raises:
            ConfigError: not exactly one thing is named, an empty one, or an issuer whose tokens are not taken here.

        """
        what = {"token_id": token_id, "client_id": client_id, "org_id": org_id, "key_id": key_id}
        self.operator.order(_order("reinstate", what, {"issuer": issuer, "reason": reason, "by": by}))

    def suspend(self, *, org_id: str, until: float | None = None, reason: str = "", by: str = "") -> None:
        """Refuse every call of an organization, as a policy that suspends it does, and end its open streams.

        Takes effect as :meth:`revoke` does.

        Args:
            org_id: the id of the organization.
            until: when this lapses, in POSIX seconds; ``None`` for never.
            reason: why, for people.
            by: who says so, for people.

        Raises:
            ConfigError: ``org_id`` is empty.

        """
        self.operator.order(_order("suspend", {"org_id": org_id}, {"until": until, "reason": reason, "by": by}))

    def resume(self, *, org_id: str, reason: str = "", by: str = "") -> None:
        """Take back what :meth:`suspend` did; what the policy suspends stays suspended, and ended streams stay ended.

        Args:
            org_id: the id of the organization.
            reason: why, for people.
            by: who says so, for people.

        Raises:
            ConfigError: ``org_id`` is empty.

        """
        self.operator.order(_order("resume", {"org_id": org_id}, {"reason": reason, "by": by}))


def _order(verb: Verb, what: Mapping[str, str | None], more: Mapping[str, Any]) -> Order:
    """Return an order about the one thing that ``what`` names; ``None`` stands for what is not given.

    Raises:
        ConfigError: not exactly one thing is named, an empty one, or the order cannot be carried out.

    """
    given = [(name, value) for name, value in what.items() if value is not None]
    if len(given) != 1:
        named = "none" if not given else " and ".join(name for name, _ in given)
        raise ConfigError(f"{verb}: give exactly one of {', '.join(what)}; not {named}")
    [(name, value)] = given
    if value == "":
        raise ConfigError(f"{verb}: {name} is empty; name what is meant")
    if more.get("issuer") == "":
        raise ConfigError(f"{verb}: issuer is empty; leave it out for every issuer")
    order = Order(verb, _KINDS[name], value)._replace(
        **{field: value for field, value in more.items() if value is not None}
    )
    order.check()
    return order
