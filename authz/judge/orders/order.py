"""One order: whom to refuse, until when, why, and who says so."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self, get_args

from authz.errors import ConfigError

Verb = Literal["revoke", "reinstate", "suspend", "resume"]
Kind = Literal["token", "client", "organization", "key"]
Act = Literal["revoke", "suspend"]
Source = Literal["operator", "workos", "other"]

MAX_NAME, MAX_TEXT = 1024, 500
"""How many characters an id or an issuer may have, and a reason or the name of a person."""

MICROSECONDS = 1_000_000

OPERATOR: Source = "operator"
"""Where orders come from that name no source: from a page, a command or a program of the operator."""

_SOURCE = re.compile(r"[a-z][a-z0-9_-]{0,31}|", re.ASCII)

ACTS: dict[Verb, Act] = {"revoke": "revoke", "reinstate": "revoke", "suspend": "suspend", "resume": "suspend"}
"""What each verb does or takes back."""

_TEXTS = {"id": MAX_NAME, "issuer": MAX_NAME, "reason": MAX_TEXT, "by": MAX_TEXT, "source": MAX_TEXT}
# Until the year 2255: microseconds since 1970 are exact in a double, which is how scripts in a store count.
_LATEST = 9e9


class Subject(NamedTuple):
    """What orders are about: of several about one subject the latest counts.

    Args:
        act: what they do or take back.
        kind: what ``id`` names; only organizations are suspended.
        id: a client id, an organization's id, the ``kid`` of a key, or the ``jti`` of a token.
        issuer: the issuer that names it so; empty for what any issuer does.

    """

    act: Act
    kind: Kind
    id: str
    issuer: str = ""


class Order(NamedTuple):
    """An order.

    Args:
        verb: what is to be done.
        kind: what ``id`` names.
        id: a client id, an organization's id, the ``kid`` of a key, or the ``jti`` of a token.
        issuer: the issuer that names it so; empty for every issuer.
        issued_before: revoke only tokens that were issued before this POSIX time, or that do not say when they were.
        until: when the order lapses, in POSIX seconds; ``None`` for never. A token's at its end at the latest.
        reason: why, for people.
        by: who gives it, for people.
        source: what it comes from, such as ``workos``, if not from the operator.
        at: when it was given, in microseconds since 1970; 0 before that is known, and always where a token is only
            to be listed as revoked.

    """

    verb: Verb
    kind: Kind
    id: str
    issuer: str = ""
    issued_before: float | None = None
    until: float | None = None
    reason: str = ""
    by: str = ""
    source: str = ""
    at: int = 0

    @property
    def subject(self) -> Subject:
        """What it is about."""
        return Subject(ACTS[self.verb], self.kind, self.id, self.issuer)

    @property
    def is_lifting(self) -> bool:
        """Whether it takes back another one."""
        return self.verb != ACTS[self.verb]

    @property
    def is_listing(self) -> bool:
        """Whether it lists a token as revoked, which anything else that is ordered about the token goes before."""
        return self.kind == "token" and self.verb == "revoke" and not self.at

    @property
    def origin(self) -> Source:
        """What it comes from, of few words: whatever a store may hold, it makes no more labels of a metric."""
        source = self.source or OPERATOR
        return source if source in get_args(Source) else "other"  # type: ignore[return-value]

    def concerns(self, issued_at: float | None, now: float) -> bool:
        """Say whether it refuses a token of its subject.

        Args:
            issued_at: when the token was issued, in POSIX seconds, if it says so.
            now: the time, in POSIX seconds.

        """
        if self.until is not None and now >= self.until:
            return False
        return self.issued_before is None or issued_at is None or issued_at < self.issued_before

    def counts_before(self, other: "Order") -> bool:
        """Say whether of two orders about one subject ``other`` counts, wherever the two are compared."""
        if self.at != other.at:
            return self.at < other.at
        # Mostly it is the same order, come by another way; its text takes a hundred times as long.
        return self != other and self.text() < other.text()

    def text(self) -> bytes:
        """Return it as JSON, the same for equal orders; without ``at``."""
        told = {name: value for name, value in zip(self._fields, self, strict=True) if value not in ("", None)}
        del told["at"]
        return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, text: bytes | str, at: int) -> Self:
        """Return the order that :meth:`text` has written; members that are not known are ignored.

        Raises:
            ConfigError: it is not an order.

        """
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            raise ConfigError("an order is not JSON") from None
        if not isinstance(told, dict):
            raise ConfigError("an order is not a JSON object")
        return cls.of(told, at)

    @classmethod
    def of(cls, told: Mapping[str, Any], at: int) -> Self:
        """Return the order that the members of a JSON object say; those that are not known are ignored.

        Raises:
            ConfigError: it is not an order.

        """
        known = {name: told[name] for name in cls._fields if name in told and name != "at"}
        if not {"verb", "kind", "id"} <= known.keys():
            raise ConfigError("an order lacks its verb, kind or id")
        order = cls(**known, at=at)
        order.check()
        return order

    def check(self) -> None:
        """Check that it says something that can be carried out.

        Raises:
            ConfigError: it does not; the message names the field.

        """
        if self.verb not in get_args(Verb) or self.kind not in get_args(Kind):
            raise ConfigError(f"order: there is no {self.verb!a} of a {self.kind!a}")
        for name, most in _TEXTS.items():
            _check_text(name, getattr(self, name), most)
        if not _SOURCE.fullmatch(self.source):
            raise ConfigError("source: not a word of at most 32 small letters, digits, _ and -")
        if not self.id:
            raise ConfigError(f"{self.verb}: the id of the {self.kind} is empty")
        if any(map(str.isspace, self.issuer)):
            raise ConfigError("issuer: not a URL")
        for name in ("issued_before", "until"):
            _check_time(name, getattr(self, name))
        if not 0 <= self.at < _LATEST * MICROSECONDS:
            raise ConfigError("at: not a number of microseconds since 1970")
        self._check_sense()

    def _check_sense(self) -> None:
        if ACTS[self.verb] == "suspend" and (self.kind != "organization" or self.issuer):
            raise ConfigError(f"{self.verb}: only an organization can be suspended, and for every issuer")
        if self.issued_before is not None and (self.verb != "revoke" or self.kind == "token"):
            raise ConfigError("issued_before: only for what has several tokens, and is revoked")
        if self.is_lifting and self.until is not None:
            raise ConfigError(f"until: what {self.verb} takes back stays so")


def _check_text(name: str, value: object, most: int) -> None:
    if not isinstance(value, str) or len(value) > most:
        raise ConfigError(f"{name}: not a text of at most {most} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name}: not Unicode text") from None


def _check_time(name: str, value: Any) -> None:
    is_time = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if value is not None and not (is_time and 0 <= value < _LATEST):
        raise ConfigError(f"{name}: not a time in seconds since 1970")
