"""What was made of callers that call again and again.

By the identity of the principal, which is quicker than to compare so many fields: a verifier remembers one object for
each token.
"""

from typing import Generic, TypeVar

from authz.call.memory import Memory
from authz.call.principal import Principal

T = TypeVar("T")


class Known(Generic[T]):
    """Remember one thing of each of a number of principals; forget all of them when there would be more.

    Args:
        size: how many principals there may be.

    """

    def __init__(self, size: int) -> None:
        # An entry holds the object, so its id is not another's meanwhile.
        self._entries = Memory[int, tuple[Principal, T]](size)

    def of(self, principal: Principal) -> T | None:
        """Return what is remembered of ``principal``, this object and no equal one."""
        entry = self._entries.get(id(principal))
        return None if entry is None else entry[1]

    def remember(self, principal: Principal, made: T) -> T:
        """Remember ``made`` of ``principal``, and return it."""
        self._entries.remember(id(principal), (principal, made))
        return made
