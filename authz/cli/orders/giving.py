"""The commands that give orders to all replicas: ``authz revoke``, ``reinstate``, ``suspend`` and ``resume``."""

import getpass
import os
import time
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from authz.cli.app import ALLOWED, say
from authz.cli.orders.fleet import StoreFlags, store_of, wait_until_in_force
from authz.cli.times import seconds_of, time_of
from authz.errors import ConfigError
from authz.judge.orders.order import MAX_TEXT, Kind, Order, Verb

UNCONFIRMED = 1
"""The exit code if an order was written, and not every replica has said in time that it is in force."""

_Id = Annotated[str | None, Parameter(allow_leading_hyphen=True)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Named:
    """What an order is about."""

    client: _Id = None
    """The client ID of an application."""
    organization: _Id = None
    """The ID of an organization."""
    key: _Id = None
    """The kid of a key of an issuer."""
    token: _Id = None
    """The jti of a token, never the token itself."""
    issuer: str | None = None
    """The issuer that names it so; by default every issuer."""

    def order(self, verb: Verb) -> Order:
        """Return an order about it, or raise ConfigError."""
        kinds: dict[Kind, str | None] = {
            "client": self.client,
            "organization": self.organization,
            "key": self.key,
            "token": self.token,
        }
        given = {kind: name for kind, name in kinds.items() if name is not None}
        if len(given) != 1:
            raise ConfigError(f"{verb}: give one of --client, --organization, --key and --token")
        if self.issuer == "":
            raise ConfigError("issuer: is empty; leave it out for every issuer")
        [(kind, name)] = given.items()
        if kind == "token" and name.count(".") == 2:  # noqa: PLR2004 - the dots of a JWS
            raise ConfigError("token: this looks like a token; give its jti, which authz verify shows")
        return Order(verb, kind, name, self.issuer or "")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Given:
    """How an order is given."""

    reason: str = ""
    """Why, for people."""
    by: str | None = None
    """Who gives the order, for people; by default the user of the system."""
    wait: float | None = None
    """Seconds to wait until every replica says that it is in force. By default it is only written."""

    def give(self, order: Order, flags: StoreFlags) -> int:
        """Write the order into the store, wait if that is asked for, and return the exit code."""
        if self.wait is not None and not 0 < self.wait <= 3600:  # noqa: PLR2004 - an hour
            raise ConfigError("wait: not a number of seconds above 0 and up to 3600")
        order = order._replace(reason=self.reason, by=_user() if self.by is None else self.by)
        order.check()
        with store_of(flags) as store:
            from authz.store.orders_store import OrdersStore  # noqa: PLC0415 - the extra's

            position = OrdersStore(store).write([order])
            if self.wait is None:
                say(f"written: {order.verb} {order.kind} {order.id}")
                return ALLOWED
            from authz.store.connection import StoreError  # noqa: PLC0415 - as above
            from authz.store.replicas import Replicas  # noqa: PLC0415 - as above

            try:
                is_in_force, lines = wait_until_in_force(Replicas(store).all, position, self.wait)
            except StoreError as error:
                # The order stands all the same, which no other exit code would say.
                is_in_force, lines = False, [f"written, but not confirmed: {error}"]
        say(*lines)
        return ALLOWED if is_in_force else UNCONFIRMED


def revoke(
    *,
    named: Named | None = None,
    issued_before: str | None = None,
    until: str | None = None,
    given: Given | None = None,
    flags: StoreFlags = None,
) -> int:
    """Refuse a token, or all tokens of an application, an organization or a key, in every replica, and end its streams.

    Exit code 1 means that the order was written, and that not every replica has said in time that it is in force.

    Parameters
    ----------
    issued_before
        Refuse only tokens issued before this time: now, 2027-01-31T18:00:00Z, or seconds since 1970.
    until
        When the order ends: such a time, or after how long, such as 24h or 7d. By default never.

    """
    order = (named or Named()).order("revoke")
    now = time.time()
    if issued_before is not None:
        order = order._replace(issued_before=time_of("issued_before", issued_before, now))
    return (given or Given()).give(_ending(order, until, now), flags)


def reinstate(*, named: Named | None = None, given: Given | None = None, flags: StoreFlags = None) -> int:
    """Take back what `authz revoke` has ordered; without --issuer what was ordered about every issuer.

    Exit code 1 means that the order was written, and that not every replica has said in time that it is in force.
    """
    return (given or Given()).give((named or Named()).order("reinstate"), flags)


def suspend(
    organization: str, /, *, until: str | None = None, given: Given | None = None, flags: StoreFlags = None
) -> int:
    """Refuse every call of an organization in every replica, and end its streams.

    Exit code 1 means that the order was written, and that not every replica has said in time that it is in force.

    Parameters
    ----------
    organization
        Its ID.
    until
        When the order ends: 2027-01-31T18:00:00Z, seconds since 1970, or after how long, such as 24h or 7d. By default
        never.

    """
    order = Order("suspend", "organization", organization)
    return (given or Given()).give(_ending(order, until, time.time()), flags)


def resume(organization: str, /, *, given: Given | None = None, flags: StoreFlags = None) -> int:
    """Take back what `authz suspend` has ordered.

    Exit code 1 means that the order was written, and that not every replica has said in time that it is in force.

    Parameters
    ----------
    organization
        Its ID.

    """
    return (given or Given()).give(Order("resume", "organization", organization), flags)


def _ending(order: Order, until: str | None, now: float) -> Order:
    if until is None:
        return order
    seconds = seconds_of(until)
    try:
        end = time_of("until", until, now) if seconds is None else now + seconds
    except ConfigError as error:
        raise ConfigError(f"{error}; or after how long, such as 24h") from None
    if end <= now:
        raise ConfigError("until: that is past, so nothing would be refused")
    return order._replace(until=end)


def _user() -> str:
    try:
        return getpass.getuser()[:MAX_TEXT]
    except (ImportError, KeyError, OSError):
        # In a container the number of a user often has no name.
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
