"""The thread that adds what this process has counted to the store."""

import math
import secrets
import time
from itertools import islice

from authz.decisions.usage import DAY, HOUR, Rows, Usage
from authz.runtime import fork, telemetry
from authz.runtime.threads import Repeating
from authz.store.connection import Store, StoreError
from authz.store.usage.counts import KEPT_DAYS, UsageStore

SECONDS = 10.0
"""How often counts are sent: a crash loses those of so many seconds at the most."""

MAX_ROWS = 200_000
"""How many rows are kept in full while the store is away; see :class:`authz.decisions.usage.Rows`."""

BATCH = 400
"""How many rows are added in one step, which takes the store some three milliseconds."""

_END_SECONDS = 5.0
# A store that is busy may answer the next time.
_PAUSE_SECONDS = 0.2


class UsageWriter:
    """Send what an observer counts to the store, every ten seconds and at the end.

    While the store is away, counts wait; if they become too many, they become coarser, and none is lost. An answer that
    is lost does no harm: the same counts are sent under the same number again, and the store adds no number twice.

    Args:
        store: where they go.
        usage: counts decisions; only this writer may take from it.
        days: how long the store keeps them.
        seconds: how often they are sent.
        max_rows: how many rows may wait in full.

    Attributes:
        store: that of the argument.
        usage: that of the argument.
        unsent: how many decisions wait to be sent, without those that are still with the observer.
        coarser: how many were counted in coarser rows, for lack of room.
        failing: why the store does not have them, in a word; empty if it does.

    """

    _waiting: Rows
    _batch: Rows
    unsent: int
    coarser: int
    failing: str

    def __init__(
        self,
        store: Store,
        usage: Usage,
        *,
        days: int = KEPT_DAYS,
        seconds: float = SECONDS,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self.store, self.usage, self._usage_store = store, usage, UsageStore(store, days=days)
        self._seconds, self._max_rows = seconds, max_rows
        self._forget()
        self._sending = Repeating("authz-usage", self._send)
        fork.register(self)

    def start(self) -> None:
        """Begin to send, in every forked child as well."""
        self._sending.start()

    def stop(self) -> None:
        """Send the rest, within a few seconds, and end."""
        self._sending.stop()
        end = time.monotonic() + _END_SECONDS
        while not self.flush(end - time.monotonic()) and time.monotonic() < end:
            time.sleep(_PAUSE_SECONDS)

    def after_fork(self) -> None:
        """Begin with nothing: what the parent has counted, the parent sends."""
        self._forget()

    def flush(self, at_most: float = math.inf) -> bool:
        """Send all that waits; say whether the store has it. Not for two threads at a time.

        Args:
            at_most: after how many seconds no more is sent.

        """
        end = time.monotonic() + at_most
        self._gather()
        try:
            while self._next_batch():
                if time.monotonic() >= end:
                    return False
                self._usage_store.add(self._sender, self._number, self._batch)
                self.unsent -= self._batch.total()
                self._batch = Rows(BATCH)
        except StoreError as error:
            self._tell(error.reason)
            return False
        # Anew, because rows that were sent still take places.
        self._waiting = Rows(self._max_rows)
        self._tell("")
        return True

    def _send(self) -> float:
        self.flush()
        return self._seconds

    def _forget(self) -> None:
        # Another one for each process, because its numbers begin anew.
        self._sender, self._number = secrets.token_hex(8), 0
        self._waiting, self._batch = Rows(self._max_rows), Rows(BATCH)
        self.unsent = self.coarser = 0
        self.failing = ""

    def _gather(self) -> None:
        waiting, taken = self._waiting, self.usage.take()
        coarser = waiting.coarser
        for row, count in taken.items():
            waiting.add(row._replace(time=row.time // HOUR * HOUR), count)
        self.coarser += waiting.coarser - coarser + taken.coarser
        self.unsent += taken.total()

    def _next_batch(self) -> bool:
        """Have a batch ready: the one whose fate is not known, or the next one; return false if nothing waits."""
        if self._batch:
            return True
        day = next((row.time // DAY for row in self._waiting), None)
        rows = list(islice((row for row in self._waiting if row.time // DAY == day), BATCH))
        for row in rows:
            self._batch[row] = self._waiting.pop(row)
        self._number += bool(rows)
        return bool(rows)

    def _tell(self, failing: str) -> None:
        if failing and not self.failing:
            telemetry.event(telemetry.WARNING, "usage_unsent", reason=failing, calls=self.unsent)
        elif self.failing and not failing:
            telemetry.event(telemetry.INFO, "usage_sent")
        self.failing = failing
