"""Bounds on a port for operators: few connections at a time, and a bounded pace of requests.

The port is served in the event loop that decides, so its cost is bounded whatever clients do: each connection that
is one too many ends the least needed one, and a hundred requests a second are handled, in the order in which their
connections asked.
"""

import asyncio
from collections import Counter, deque
from typing import Protocol

MAX_CONNECTIONS = 64
"""Of orchestrators, scrapers and pages; each takes a file descriptor, and the calls need those, too."""

MAX_PER_PEER = 16
"""Of one address. All clients behind one proxy, or on this machine, share an address and so this bound."""

TURNS_PER_SECOND = 100
"""How many requests of all connections are handled; each takes half a millisecond of the event loop."""

BURST_OF_TURNS = 8


class Connection(Protocol):
    """What is asked of a connection here."""

    peer: str

    @property
    def is_busy(self) -> bool:
        """Whether a request of it is being answered."""

    def abort(self) -> None:
        """End it at once."""

    def go_on(self) -> None:
        """Handle what it has sent."""


class Room:
    """The open connections.

    Every new connection is let in. If there are too many of its address, the oldest idle one of these makes room; if
    there are too many in all, the oldest idle one of the address that has most. A connection that has sent half a
    request, or does not read its answer, counts as idle.
    """

    def __init__(self) -> None:
        # In the order in which they became idle.
        self._connections: dict[Connection, None] = {}

    def enter(self, connection: Connection) -> None:
        """Let a new connection in."""
        of_peer = [other for other in self._connections if other.peer == connection.peer]
        if len(of_peer) >= MAX_PER_PEER:
            self._end_one_of(of_peer)
        elif len(self._connections) >= MAX_CONNECTIONS:
            [(most, _)] = Counter(other.peer for other in self._connections).most_common(1)
            self._end_one_of([other for other in self._connections if other.peer == most])
        self._connections[connection] = None

    def answered(self, connection: Connection) -> None:
        """Note that a connection has had its answer, and is idle from now on."""
        if connection in self._connections:
            self.leave(connection)
            self._connections[connection] = None

    def leave(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._connections.pop(connection, None)

    def _end_one_of(self, connections: list[Connection]) -> None:
        ended = next((one for one in connections if not one.is_busy), connections[0])
        self.leave(ended)
        ended.abort()


class Turns:
    """Turns in the order of the requests, so many a second.

    Args:
        per_second: how many.

    """

    def __init__(self, per_second: float = TURNS_PER_SECOND) -> None:
        self._per_second = per_second
        self._loop = asyncio.get_running_loop()
        self._left, self._counted_at = float(BURST_OF_TURNS), self._loop.time()
        self._waiting: deque[Connection] = deque()
        self._next: asyncio.TimerHandle | None = None

    def take(self, connection: Connection) -> bool:
        """Return whether it is this connection's turn; if not, it will be told to go on."""
        if connection in self._waiting:
            return False
        if not self._waiting and self._has_one():
            return True
        self._waiting.append(connection)
        self._wait()
        return False

    def forget(self, connection: Connection) -> None:
        """Drop the turn of a connection that has ended."""
        if connection in self._waiting:
            self._waiting.remove(connection)

    def _has_one(self) -> bool:
        now = self._loop.time()
        self._left = min(BURST_OF_TURNS, self._left + (now - self._counted_at) * self._per_second)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _wait(self) -> None:
        if self._next is None and self._waiting:
            self._next = self._loop.call_later(1 / self._per_second, self._let_one_go_on)

    def _let_one_go_on(self) -> None:
        self._next = None
        if self._waiting and self._has_one():
            self._waiting.popleft().go_on()
        self._wait()
