"""What was made of callers that call again and again.

By the identity of the principal, which is quicker than to compare so many fields: a verifier remembers one object for
each token.
"""

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import ref

from authz.call.memory import Memory
from authz.call.principal import Principal

T = TypeVar("T")


class Known(Generic[T]):
    """Remember one thing of each of a number of principals; forget all of them when there would be more.

    No principal lives longer for it: how much memory callers take, the verifier alone decides.

    Args:
        size: how many principals there may be.

    """

    def __init__(self, size: int) -> None:
        self._entries = Memory[int, tuple[_Reference, T]](size)
        self._forget = _forgetting(self._entries)

    def of(self, principal: Principal) -> T | None:
        """Return what is remembered of ``principal``, this object and no equal one."""
        entry = self._entries.get(id(principal))
        # Compared, for another object may have the id of one that is gone.
        return entry[1] if entry is not None and entry[0]() is principal else None

    def remember(self, principal: Principal, made: T) -> T:
        """Remember ``made`` of ``principal``, and return it."""
        reference = _Reference(principal, self._forget)
        reference.key = key = id(principal)
        self._entries.remember(key, (reference, made))
        return made


class _Reference(ref[Principal]):
    """A principal that may be gone, and its id."""

    __slots__ = ("key",)

    key: int


def _forgetting(entries: Memory[int, tuple[_Reference, T]]) -> Callable[[ref[Principal]], None]:
    """Return what is called with the reference to a principal that is gone; it must not keep alive what calls it."""

    def forget(gone: ref[Principal]) -> None:
        if isinstance(gone, _Reference):
            entry = entries.get(gone.key)
            if entry is not None and entry[0] is gone:
                entries.pop(gone.key, None)

    return forget
