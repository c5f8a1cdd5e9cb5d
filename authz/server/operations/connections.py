"""Who may be connected to a port for operators, and whose turn it is: few connections, and a bounded pace.

The port is in the event loop of the server itself, so what it costs is bounded whatever comes: for each connection
that is one too many the one that is least needed is ended, and a hundred requests a second are listened to, in the
order in which their connections came.
"""

import asyncio
from collections import Counter, deque
from typing import Protocol

MAX_CONNECTIONS = 64
"""Of orchestrators, scrapers and pages; each takes a file descriptor, of which the calls need some."""

MAX_PER_PEER = 16
"""Of one address. All that comes through one proxy or from this machine shares an address, and so this room."""

TURNS_PER_SECOND = 100
"""How many requests are listened to, all connections together: half a millisecond of the loop each time."""

BURST_OF_TURNS = 8


class Connection(Protocol):
    """One connection, as it is judged here."""

    peer: str

    @property
    def is_busy(self) -> bool:
        """Whether it has asked, and is being answered."""

    def abort(self) -> None:
        """End it at once."""

    def go_on(self) -> None:
        """Listen to what it has sent."""


class Room:
    """The connections there are.

    Every new connection is let in. Where there are too many of its address, the oldest of these that is idle makes
    room; where there are too many of all, the oldest idle one of the address that has most. One that has sent half a
    request, or does not read its answer, is idle.
    """

    def __init__(self) -> None:
        # Those that have been idle for longest come first.
        self._connections: dict[Connection, None] = {}

    def enter(self, connection: Connection) -> None:
        """Let one in."""
        of_peer = [other for other in self._connections if other.peer == connection.peer]
        if len(of_peer) >= MAX_PER_PEER:
            self._end_one_of(of_peer)
        elif len(self._connections) >= MAX_CONNECTIONS:
            [(most, _)] = Counter(other.peer for other in self._connections).most_common(1)
            self._end_one_of([other for other in self._connections if other.peer == most])
        self._connections[connection] = None

    def answered(self, connection: Connection) -> None:
        """Note that one has got its answer, and is idle from now on."""
        if connection in self._connections:
            self.leave(connection)
            self._connections[connection] = None

    def leave(self, connection: Connection) -> None:
        """Forget one that has ended."""
        self._connections.pop(connection, None)

    def _end_one_of(self, connections: list[Connection]) -> None:
        ended = next((one for one in connections if not one.is_busy), connections[0])
        self.leave(ended)
        ended.abort()


class Turns:
    """Whose turn it is: first come, first served, and so many in a second."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._left, self._counted_at = float(BURST_OF_TURNS), self._loop.time()
        self._waiting: deque[Connection] = deque()
        self._next: asyncio.TimerHandle | None = None

    def take(self, connection: Connection) -> bool:
        """Say whether it is this one's turn; if not, it will be told to go on."""
        if connection in self._waiting:
            return False
        if not self._waiting and self._has_one():
            return True
        self._waiting.append(connection)
        self._wait()
        return False

    def forget(self, connection: Connection) -> None:
        """Give the place of one that has ended to the next."""
        if connection in self._waiting:
            self._waiting.remove(connection)

    def _has_one(self) -> bool:
        now = self._loop.time()
        self._left = min(BURST_OF_TURNS, self._left + (now - self._counted_at) * TURNS_PER_SECOND)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _wait(self) -> None:
        if self._next is None and self._waiting:
            self._next = self._loop.call_later(1 / TURNS_PER_SECOND, self._let_one_go_on)

    def _let_one_go_on(self) -> None:
        self._next = None
        if self._waiting and self._has_one():
            self._waiting.popleft().go_on()
        self._wait()
