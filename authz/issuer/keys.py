"""The keys of an issuer: where a verifier gets them, keys that never change, and their health."""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from authz.errors import ConfigError
from authz.runtime import telemetry
from authz.runtime.flow import Flow
from authz.token.jwk import PRIVATE_MEMBERS, KeyRing, VerificationKey, parse_jwks

# Some editors write one at the beginning of a file (RFC 8259 section 8.1 lets a reader skip it).
_BYTE_ORDER_MARK = "\ufeff"


def load_jwks(jwks: Mapping[str, Any] | str | os.PathLike[str], setting: str) -> KeyRing:
    """Read the key set that the operator configured.

    Args:
        jwks: a parsed JWK Set, its JSON text, or the path of a file.
        setting: what to call it in an error.

    Raises:
        ConfigError: it cannot be read, is not a JWK Set, or holds no key that can verify.

    """
    document, source = (jwks, "the value") if isinstance(jwks, Mapping) else _document(jwks, setting)
    try:
        ring = parse_jwks(document)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from error
    if not ring.keys:
        raise ConfigError(f"{setting}: no key of the set can verify a signature ({ring.why_dropped()})")
    log_dropped(ring, source)
    return ring


def public_jwks(jwks: str, setting: str) -> str:
    """Return the text of a configured key set, without anything that callers may not see.

    Args:
        jwks: its JSON text, or the path of a file.
        setting: what to call it in an error.

    Raises:
        ConfigError: as for :func:`load_jwks`; or a key in it has private parts.

    """
    load_jwks(jwks, setting)
    document, _ = _document(jwks, setting)
    if not all(isinstance(key, dict) and PRIVATE_MEMBERS.isdisjoint(key) for key in document["keys"]):
        raise ConfigError(f"{setting}: has private or secret keys, which are not shown; give the public ones only")
    return json.dumps({"keys": document["keys"]}, indent=2) + "\n"


def _document(jwks: str | os.PathLike[str], setting: str) -> tuple[dict[str, Any], str]:
    text, source = str(jwks).removeprefix(_BYTE_ORDER_MARK), "the JSON text"
    if not (isinstance(jwks, str) and text.lstrip().startswith("{")):
        source = f"file {os.fspath(jwks)!a}"
        try:
            text = Path(jwks).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(
                f"{setting}: {source} cannot be read ({why}); give a path or the JSON of a JWK Set"
            ) from error
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{setting}: {source} is not JSON; give a JWK Set such as the issuer's /oauth2/jwks"
        ) from error
    if not isinstance(document, dict):
        raise ConfigError(f"{setting}: {source} is not a JWK Set")
    return document, source


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySetHealth:
    """The state of a key set, for health checks and metrics; times in seconds.

    Args:
        is_ready: whether there are keys, so that tokens can be verified.
        keys: how many.
        age: since the last successful fetch, or ``None`` if there was none, or none is needed.
        lasts: until the keys are no longer believed, if no fetch succeeds.
        error: why the last fetch failed, in the words of :mod:`authz.runtime.network.causes`; empty if it did not.
        retry_in: until a failed fetch may be tried again.
        fetches: how many fetches have succeeded so far.
        failures: how many have failed.
        kids: the ``kid`` of each key, in the issuer's order; ``None`` for a key without one.
        dropped: for each key of the set that is left out, its ``kid`` and the reason.
        causes: how many fetches have failed, by :func:`authz.runtime.network.causes.label`.

    """

    is_ready: bool
    keys: int
    age: float | None = None
    lasts: float = math.inf
    error: str = ""
    retry_in: float = 0.0
    fetches: int = 0
    failures: int = 0
    kids: tuple[str | None, ...] = ()
    dropped: tuple[tuple[str | None, str], ...] = ()
    causes: Mapping[str, int] = field(default_factory=dict)


class KeySet(Protocol):
    """Where a verifier gets an issuer's keys."""

    def find(self, kid: str | None, algorithm: str | None = None) -> Flow[VerificationKey]:
        """Return the key of that ``kid`` for that algorithm; see :meth:`authz.token.jwk.KeyRing.get`.

        Raises:
            KeyNotFoundError: the issuer has no such key, or more than one.
            KeySetUnavailableError: the keys cannot be had, so that is unknown.

        """

    def known(self, kid: str | None, algorithm: str | None = None) -> VerificationKey | None:
        """Return the key that :meth:`find` would, if it is at hand."""

    def load(self) -> Flow[None]:
        """Fetch the keys, unless there are some already.

        Raises:
            KeySetUnavailableError: there are none yet.

        """

    def holds(self, key: VerificationKey) -> bool:
        """Say whether ``key`` is one of the issuer's at this moment."""

    def knows(self, key_id: str, thumbprint: str = "") -> bool:
        """Say whether the issuer's last key set has a key of that ``kid``.

        Args:
            key_id: the ``kid``; an empty string for a key without one.
            thumbprint: that of the key, since another key may have the same ``kid``; an empty string for any.

        """

    def watch(self, withdrawn: Callable[[frozenset[str]], None]) -> None:
        """Have ``withdrawn`` called with every ``kid`` whose key the issuer withdraws or changes."""

    def age(self) -> float | None:
        """Return the seconds since the last successful fetch, or ``None``; cheap, and without waiting."""

    def health(self) -> KeySetHealth:
        """Return the state of the key set."""

    def close(self) -> None:
        """Stop fetching."""


class StaticKeySet:
    """Keys that never change.

    Args:
        ring: the keys.

    """

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def find(self, kid: str | None, algorithm: str | None = None) -> Flow[VerificationKey]:
        """See :class:`KeySet`."""
        key = self.known(kid, algorithm)
        if key is None:
            raise self._ring.missing(kid)
        return key
        yield  # a flow that never waits

    def known(self, kid: str | None, algorithm: str | None = None) -> VerificationKey | None:
        """See :class:`KeySet`."""
        return self._ring.get(kid, algorithm)

    def load(self) -> Flow[None]:
        """See :class:`KeySet`."""
        yield from ()

    def holds(self, key: VerificationKey) -> bool:
        """See :class:`KeySet`."""
        return self._ring.holds(key)

    def knows(self, key_id: str, thumbprint: str = "") -> bool:
        """See :class:`KeySet`."""
        return self._ring.knows(key_id or None, thumbprint)

    def watch(self, withdrawn: Callable[[frozenset[str]], None]) -> None:
        """Do nothing: no key is ever taken back."""

    def age(self) -> None:
        """Return ``None``: nothing is ever fetched."""

    def health(self) -> KeySetHealth:
        """See :class:`KeySet`."""
        ring = self._ring
        return KeySetHealth(is_ready=True, keys=len(ring), kids=tuple(ring.keys), dropped=ring.dropped)

    def close(self) -> None:
        """Do nothing: there is nothing to stop."""


def log_dropped(ring: KeyRing, source: str) -> None:
    """Log which keys of a set were left out, and why."""
    for kid, reason in ring.dropped:
        telemetry.event(telemetry.WARNING, "jwks_key_dropped", source=source, kid=kid, reason=reason)
