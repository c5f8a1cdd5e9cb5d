"""``authz orders``: what was ordered, as a list, as it happens, and as a file."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

from authz.cli.app import ALLOWED, flush, say, standard_input, write
from authz.cli.orders.fleet import StoreFlags, store_of
from authz.cli.times import shown
from authz.errors import ConfigError
from authz.judge.orders.book import OrderBook
from authz.judge.orders.file import line_of, pieces, read_line
from authz.judge.orders.operator import listing
from authz.judge.orders.order import MICROSECONDS, Order

if TYPE_CHECKING:
    from authz.store.connection import Store
    from authz.store.orders_store import OrdersStore, Position

orders = cyclopts.App(name="orders", help="What was ordered: list it, follow it, copy it to a file and back.")

_File = Annotated[Path, Parameter(allow_leading_hyphen=True)]

_READ_SECONDS = 1.0


@orders.default
def show(
    *,
    follow: Annotated[bool, Parameter(negative=())] = False,
    every: Annotated[bool, Parameter(name="--all", negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    flags: StoreFlags = None,
) -> int:
    """List the orders that are in force, the latest last.

    Parameters
    ----------
    follow
        Go on with each new one, also with those that take others back, until Ctrl-C.
    every
        Also list what was taken back, has ended, or only told that an organization has changed.
    as_json
        Print one JSON object a line.

    """
    tell = _write if as_json else _say
    with store_of(flags) as store:
        from authz.store.orders_store import OrdersStore  # noqa: PLC0415 - the extra's

        kept = OrdersStore(store)
        position = kept.position()
        book, _ = kept.load()
        now = time.time()
        told = (order for order in _all_of(book) if every or (order.is_refusing and not _has_ended(order, now)))
        _tell_all(store, list(told), tell)
        while follow:
            flush()
            position, news = _next(kept, position, book)
            _tell_all(store, news, tell)
    return ALLOWED


@orders.command(name="export")
def export_orders(file: _File, /, *, flags: StoreFlags = None) -> int:
    """Write all orders into a file, also what was taken back; for `authz orders import`, or `authz serve --orders`.

    Parameters
    ----------
    file
        The file, which is replaced; - is standard output.

    """
    _check(file)
    with _orders_in(flags) as kept:
        book, _ = kept.load()
    if str(file) == "-":
        write(b"".join(pieces(book)).decode())
        return ALLOWED
    new = file.with_name(f"{file.name}.new")
    try:
        # Half a file must never stand in the place of a whole one.
        new.touch(0o600)
        new.write_bytes(b"".join(pieces(book)))
        new.replace(file)
    except OSError as error:
        raise ConfigError(f"file: {str(file)!a} cannot be written ({error.strerror})") from None
    say(f"{file}: {_counted(len(book), 'order')}, {_counted(len(book.tokens), 'revoked token')}")
    return ALLOWED


@orders.command(name="import")
def import_orders(file: _File, /, *, flags: StoreFlags = None) -> int:
    """Take in the orders of a file; of two about the same the latest counts, so older ones do no harm.

    Parameters
    ----------
    file
        A file of `authz orders export`, or of `authz serve --orders`; - is standard input.

    """
    _check(file)
    read = _read(file)
    with _orders_in(flags) as kept:
        news = kept.restore(read)
    say(f"{file}: {_counted(len(read), 'order')}, {news} of them news")
    return ALLOWED


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _check(file: Path) -> None:
    if str(file).startswith("--"):
        # A leading hyphen is allowed only for "-" itself.
        raise ConfigError(f"Unknown option: {file}")


@contextlib.contextmanager
def _orders_in(flags: StoreFlags) -> "Iterator[OrdersStore]":
    with store_of(flags) as store:
        from authz.store.orders_store import OrdersStore  # noqa: PLC0415 - the extra's

        yield OrdersStore(store)


def _next(kept: "OrdersStore", position: "Position", book: OrderBook) -> "tuple[Position, list[Order]]":
    """Return how far the log was read now, and what came that is not in the book, where it is then."""
    entries = kept.entries(position.id, _READ_SECONDS)
    read = kept.parsed(entry for _, entry in entries)
    if entries:
        position = position._replace(id=entries[-1][0], entry=entries[-1][1])
    elif kept.continues(position) != "yes":
        # Emptied, or replaced by a copy: the log says nothing about it, and goes on elsewhere.
        position = kept.position()
        read = list(_all_of(kept.load()[0]))
    return position, [order for order in read if book.take(order)]


def _all_of(book: OrderBook) -> Iterator[Order]:
    listed = (listing(name, end) for name, end in book.tokens)
    # What was ordered about a token otherwise goes before the list.
    yield from (order for order in listed if book.get(order.subject) is None)
    yield from sorted(book, key=lambda order: order.at)


def _tell_all(store: "Store", orders: Sequence[Order], tell: Callable[[Order, str], None]) -> None:
    """Tell of each order, and what the application is called that it is about."""
    from authz.server.workos.shared_register import names_in  # noqa: PLC0415 - the extra's

    names = names_in(store, (order.id for order in orders if order.kind == "client"))
    for order in orders:
        tell(order, names.get(order.id, "") if order.kind == "client" else "")


def _has_ended(order: Order, now: float) -> bool:
    return order.until is not None and now >= order.until


def _write(order: Order, name: str) -> None:
    line = line_of(order).decode()
    write(json.dumps({**json.loads(line), "client_name": name}) if name else line)


def _say(order: Order, name: str) -> None:
    words = [shown(order.at / MICROSECONDS) if order.at else "-" * 20, order.verb, order.kind, order.id]
    words += [f'"{name}"'] if name else []
    words += [f"of {order.issuer}"] if order.issuer else []
    words += [f"issued before {shown(order.issued_before)}"] if order.issued_before is not None else []
    words += [f"until {shown(order.until)}"] if order.until is not None else []
    words += [f"from {order.source}"] if order.source else []
    words += [f"by {order.by}"] if order.by else []
    say(" ".join(words) + (f": {order.reason}" if order.reason else ""))


def _read(file: Path) -> list[Order]:
    try:
        text = standard_input() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ConfigError(f"file: {str(file)!a} cannot be read as UTF-8 text") from None
    found: list[Order] = []
    # Not by str.splitlines, which also breaks at characters that may stand in a reason.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            orders, tokens = read_line(line.encode())
        except ConfigError as error:
            raise ConfigError(f"{file}:{number}: {error}") from None
        found += orders
        found += (listing(name, end) for name, end in tokens)
    return found
