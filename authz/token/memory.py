"""The memory of verified tokens: bounded in bytes, first in, first out."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from sys import getsizeof
from typing import Any, NamedTuple

from authz.call.principal import Principal
from authz.runtime import fork
from authz.token.jwk import VerificationKey

# What a token takes without its claims, in CPython 3.11 to 3.14: digest, place, times, principal.
_ENTRY = 460
# What a claim takes besides its text: its place among the others, and the head of a string. Names are shared.
_CLAIM = 96
_UNIT = 64
# More than one, so that they become fewer; few, so that no call waits for the end of many.
_EXPIRED_AT_ONCE = 2
_ROUNDING = 16


class Verified(NamedTuple):
    """A token that has been verified.

    Args:
        principal: whom it names.
        key: what has verified it.
        until_time: POSIX time until which it is remembered.
        until_monotonic: the same on the other clock.
        size: the bytes that it takes, by :func:`size_of`, in units of 64: most are numbers that Python shares.

    """

    principal: Principal
    key: VerificationKey
    until_time: float
    until_monotonic: float
    size: int


class MemoryFigures(NamedTuple):
    """What a memory of tokens holds.

    Args:
        tokens: how many.
        bytes: what they take at the most.
        limit: how many bytes they may take.
        forgotten: how many had to leave before their time, so far.

    """

    tokens: int
    bytes: int
    limit: int
    forgotten: int


class TokenMemory:
    """Verified tokens, by digest.

    The oldest leave for the newest: what has been remembered longest is also the first to expire. What has expired
    leaves as new ones come, so that a process takes the memory of the tokens that are in use.

    Args:
        limit: how many bytes they may take together.

    """

    def __init__(self, limit: int) -> None:
        self.limit, self._room = limit, limit // _UNIT
        self.after_fork()
        fork.register(self)

    def after_fork(self) -> None:
        """Start empty, with a lock that no thread holds."""
        self._lock = threading.Lock()
        self._size = self._forgotten = 0
        # Not a plain dictionary: to find the first entry of one, after many have left, takes a walk over their places.
        self._entries: OrderedDict[bytes, Verified] = OrderedDict()
        # Reading changes nothing, so it needs no lock.
        self.recall = self._entries.get

    def remember(self, digest: bytes, verified: Verified, now: float) -> None:
        """Put in a token, and have the oldest leave until there is room for it, and a few that have expired.

        Args:
            digest: :func:`authz.token.jws.digest_of` it.
            verified: what is remembered.
            now: POSIX seconds, for the figures: what has ended already is not missed.

        """
        entries = self._entries
        with self._lock:
            if digest in entries:
                self._size -= entries.pop(digest).size
            entries[digest] = verified
            self._size += verified.size
            while self._size > self._room:
                self._forgotten += self._forget_oldest().until_time > now
            for _ in range(_EXPIRED_AT_ONCE):
                if not entries or next(iter(entries.values())).until_time > now:
                    break
                self._forget_oldest()

    def _forget_oldest(self) -> Verified:
        _, oldest = self._entries.popitem(last=False)
        self._size -= oldest.size
        return oldest

    def figures(self) -> MemoryFigures:
        """Return what it holds."""
        with self._lock:
            return MemoryFigures(len(self._entries), self._size * _UNIT, self.limit, self._forgotten)


def size_of(claims: Mapping[str, Any], payload: bytes) -> int:
    """Return how many units of 64 bytes a token takes at the most, with all that is remembered of it.

    Args:
        claims: of the token, as they are remembered.
        payload: their text.

    """
    if payload.count(b"{") + payload.count(b"[") > 1 or b"\\" in payload or not payload.isascii():
        size = sum(map(_size_of, claims.values())) + _CLAIM * len(claims)
    else:
        # No text of a claim takes more than its bytes; and the token's other characters stand for what is rounded up.
        size = len(payload) + _CLAIM * len(claims)
    return (_ENTRY + size) // _UNIT + 1


def _size_of(value: Any) -> int:
    """Return the bytes that the value of a claim takes, with all that it contains."""
    size = getsizeof(value) + _ROUNDING
    if isinstance(value, tuple):
        return size + sum(map(_size_of, value))
    if isinstance(value, Mapping):
        # A dictionary behind a view, and names that no other token need share.
        inside = sum(map(_size_of, value.values())) + sum(map(_size_of, value))
        return size + getsizeof({}) + _CLAIM * (len(value) + 3) + inside
    return size
