"""What the commands about all replicas share: the way to the store, and waiting until an order is in force."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from authz.cli.program.flags import flags_of
from authz.errors import ConfigError, UnavailableError
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.configuration import extra
from authz.settings.issuer import FileSettings
from authz.settings.store import StoreSettings

if TYPE_CHECKING:
    from authz.store.connection import Store
    from authz.store.replicas import Replica


class _Settings(StoreSettings, FileSettings):
    """The store, and where settings are read."""


StoreFlags = Annotated[_Settings | None, flags_of(_Settings)]

# What stays so until somebody changes a setting, here or of the store.
_MISTAKES = frozenset({"denied", "version", "eviction", "format"})
_POLL_SECONDS = 0.05


@contextlib.contextmanager
def store_of(flags: _Settings | None) -> "Iterator[Store]":
    """Give the block the store of the settings in force.

    Raises:
        ConfigError: there is none, or it cannot be used so.
        UnavailableError: it cannot be reached, or does not do now what it is asked.

    """
    settings = _Settings.load(flags)
    with extra("store", "store: this needs the extra 'store'", package="redis"):
        from authz.store.connection import Store, StoreError  # noqa: PLC0415 - the extra's
    store = Store.of(settings)
    if store is None:
        raise ConfigError("store: missing; set AUTHZ_STORE or --store, such as redis://127.0.0.1:6379")
    try:
        store.check()
        yield store
    except StoreError as error:
        kind = ConfigError if error.reason in _MISTAKES else UnavailableError
        raise kind(str(error)) from None
    finally:
        store.close()


def wait_until_in_force(
    seen: "Callable[[], Sequence[Replica]]",
    position: str,
    seconds: float,
    *,
    clock: Clock = SYSTEM_CLOCK,
    sleep: Callable[[float], object] = time.sleep,
) -> tuple[bool, list[str]]:
    """Wait until every replica has carried out what stands in the log up to ``position``.

    Args:
        seen: returns the replicas.
        position: an id of the log.
        seconds: how long to wait at the most.
        clock: its ``monotonic`` says how long that is.
        sleep: waits for so many seconds of it.

    Returns:
        Whether there are replicas and each has, and lines that say so.

    """
    began = clock.monotonic()
    while True:
        replicas = seen()
        behind = [replica for replica in replicas if not has_applied(replica, position)]
        waited = clock.monotonic() - began
        if (replicas and not behind) or waited >= seconds:
            break
        sleep(min(_POLL_SECONDS, seconds - waited))
    if not replicas:
        return False, ["written, but no replica has been seen; they need the same store and namespace"]
    lines = [f"in force in {len(replicas) - len(behind)} of {len(replicas)} replicas after {waited:.1f} s"]
    lines += [f"  not yet in {' '.join(filter(None, (each.host, each.region, each.id)))}" for each in behind]
    return not behind, lines


def has_applied(replica: "Replica", position: str) -> bool:
    """Say whether a replica has carried out what stands in the log up to ``position``."""
    return _place(replica.applied) >= _place(position)


def _place(position: str) -> tuple[int, ...]:
    # An id of a stream: milliseconds, and a number among those of the same millisecond. Replicas of other versions may
    # say anything.
    numbers = position.split("-")
    return tuple(map(int, numbers)) if all(number.isdecimal() for number in numbers) else ()


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines, whose columns begin one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
