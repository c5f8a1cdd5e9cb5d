"""A file of orders, by which they outlive this process without a store, and while the store does not answer.

Each line is an order with its time, and of several about one subject the latest counts, as everywhere. A line is on the
disk before the giver of the order is answered. Once more is superseded than counts, the file is written anew; then a
line lists many revoked tokens, so that a million are read in seconds.

Sources of orders have their place in the file as well: up to which of their events its orders go.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from authz.errors import ConfigError
from authz.judge.orders.book import OrderBook
from authz.judge.orders.operator import NotKeptError, Operator
from authz.judge.orders.order import Order
from authz.judge.orders.tokens import member
from authz.runtime import fork, telemetry
from authz.runtime.background import background
from authz.runtime.configuration import check_posix

if TYPE_CHECKING:
    from authz.judge.authorizer import Authorizer

T = TypeVar("T")

_CLOSED = -1
# What a line begins with that tells how far sources are.
_CURSORS = b'{"cursors":'
_MODE = 0o600
# The file is written anew once it says twice as much as counts, and so much more.
_SPARE = 1000
# How many orders are written at a time, and how many tokens a line lists.
_AT_ONCE = 1000
# A clock may have been set back a little.
_SKEW_SECONDS = 60.0


class OrdersFile:
    """Keep the orders that an authorizer gets in a file, from the beginning of a ``with`` block to its end.

    At the beginning the orders in the file are carried out. A last line that a crash has cut off is dropped, which is
    logged (``orders_line_dropped``). Only one process at a time can have the file, and none that is forked from it.

    Where a line cannot be written, because the disk is full or fails, the order is in force all the same; its giver
    gets a :class:`authz.judge.orders.operator.NotKeptError`, and it is written with the next order if that works.

    Args:
        path: the file, which need not exist; beside it are ``PATH.lock`` and sometimes ``PATH.new``.
        authorizer: the one whose orders are kept.

    Attributes:
        cursors: for each source of orders up to which of its events the file has them, as that source writes it.

    Raises:
        ConfigError: at the beginning of the block, the file cannot be used; the message names the line.

    """

    def __init__(self, path: str | os.PathLike[str], authorizer: "Authorizer | Operator") -> None:
        # Not a link to it, which would be replaced by the file.
        self._path = Path(path).resolve()
        self._operator = authorizer if isinstance(authorizer, Operator) else authorizer.operator
        self._file = self._lock = _CLOSED
        self._is_the_parents = False
        # As far as the file is good, and whether it lacks orders.
        self._size = self._entries = 0
        self._lacks_some = self._is_watching = False
        self.cursors: dict[str, Any] = {}
        fork.register(self)

    def after_fork(self) -> None:
        """Leave the file to the parent."""
        self._is_the_parents = self._lock != _CLOSED
        self._close()

    def __enter__(self) -> Self:
        self._size = self._entries = 0
        try:
            # Not the file itself, which is replaced by another when it is written anew.
            self._lock = _locked(f"{self._path}.lock")
            orders, tokens = self._read()
            self._operator.carry_out(orders)
            for first in range(0, len(tokens), _AT_ONCE):
                self._operator.list_tokens(tokens[first : first + _AT_ONCE])
            with self._operator.unchanged() as book:
                self._watch()
                kept = set(orders)
                self._lacks_some |= len(book.tokens) > len(tokens) or any(order not in kept for order in book)
                self._put_in_order(book)
        except OSError as error:
            self._close()
            raise ConfigError(f"orders: {str(self._path)!a} cannot be used ({error.strerror})") from None
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with self._operator.unchanged() as book:
            if self._file != _CLOSED and self._lacks_some:
                with contextlib.suppress(OSError):
                    self._rewrite(book)
            self._close()

    def caught_up(self, now: float) -> None:
        """Note that the file has all orders of the store as of ``now``, in POSIX seconds."""
        if self._lock != _CLOSED and not self._lacks_some:
            # What is not noted counts as old, and is noted again soon.
            with contextlib.suppress(OSError):
                os.pwrite(self._lock, b"%015d\n" % now, 0)

    def age(self, now: float) -> float | None:
        """Return how many seconds before ``now`` the file had all orders of the store; ``None`` for never."""
        try:
            noted = os.pread(self._lock, 16, 0)
        except OSError:
            return None
        if not noted.strip().isdigit():
            return None
        age = now - int(noted)
        return max(age, 0.0) if age >= -_SKEW_SECONDS else None

    def keep_cursor(self, source: str, cursor: Mapping[str, Any]) -> None:
        """Note up to which of the events of a source the file has orders; they are in the file before this is.

        Args:
            source: its name.
            cursor: what it can be told as JSON by.

        Raises:
            NotKeptError: it cannot be written, or the orders cannot.

        """
        with self._operator.unchanged() as book:
            if self._file == _CLOSED:
                raise NotKeptError(f"orders: {str(self._path)!a} is not open here")
            before = dict(self.cursors)
            self.cursors[source] = cursor
            try:
                if self._lacks_some or self._is_worn(book) or not _is_there(self._path, self._file):
                    self._rewrite(book)
                else:
                    self._add(_cursor_line(self.cursors), 1)
            except OSError as error:
                self.cursors, self._lacks_some = before, True
                raise NotKeptError(f"orders: {str(self._path)!a} cannot be written ({error.strerror})") from None

    def _read(self) -> tuple[list[Order], list[tuple[str, float]]]:
        """Return the orders in the file, and the tokens that it lists.

        Raises:
            ConfigError: a line is no order.

        """
        orders: list[Order] = []
        tokens: list[tuple[str, float]] = []
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    found, listed = read_line(line)
                    self.cursors |= _cursors_of(line)
                except ConfigError as error:
                    if line.endswith(b"\n"):
                        place = f"line {number} of {str(self._path)!a}"
                        raise ConfigError(f"orders: {place}: {error}; mend it, or remove the line") from None
                    telemetry.event(telemetry.WARNING, "orders_line_dropped", file=str(self._path), line=number)
                    self._lacks_some = True
                    break
                if line.endswith(b"\n"):
                    self._size += len(line)
                else:
                    # Written by hand: the next line must not be joined to it.
                    self._lacks_some = True
                self._entries += len(found) + len(listed)
                orders += found
                tokens += listed
        return orders, tokens

    def _watch(self) -> None:
        if not self._is_watching:
            self._is_watching = True
            self._operator.watch(self._write)

    def _put_in_order(self, book: OrderBook) -> None:
        """Write the file anew if there is none, if it lacks orders, or if much of it is superseded."""
        exists = self._path.exists()
        if exists:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        if self._lacks_some or self._is_worn(book) or not exists:
            try:
                self._rewrite(book)
            except OSError as error:
                if not exists:
                    raise
                telemetry.event(telemetry.ERROR, "orders_not_kept", file=str(self._path), error=error.strerror)

    def _write(self, orders: Sequence[Order]) -> None:
        if self._is_the_parents:
            raise NotKeptError(f"orders: {str(self._path)!a} is written by the process from which this one was forked")
        if self._file == _CLOSED:
            return
        book = self._operator.book
        try:
            if self._lacks_some or self._is_worn(book) or not _is_there(self._path, self._file):
                with contextlib.suppress(OSError):
                    self._rewrite(book)
                    return
            self._append(orders)
        except OSError as error:
            self._lacks_some = True
            telemetry.event(telemetry.ERROR, "orders_not_kept", file=str(self._path), error=error.strerror)
            raise NotKeptError(
                f"orders: {str(self._path)!a} cannot be written ({error.strerror}); what was ordered is in force, but "
                "would be lost with this process: make room, and order it again"
            ) from None

    def _is_worn(self, book: OrderBook) -> bool:
        return self._entries > 2 * (len(book) + len(book.tokens)) + _SPARE

    def _append(self, orders: Sequence[Order]) -> None:
        if self._lacks_some:
            # A part of what could not be written may be at the end.
            os.ftruncate(self._file, self._size)
        # A process that starts remembers no organization of which it would have to ask again.
        lines = [line_of(order) for order in orders if order.verb != "renew"]
        self._add(b"".join(lines), len(lines))

    def _add(self, text: bytes, entries: int) -> None:
        if text:
            _write_all(self._file, text)
            os.fsync(self._file)
        self._size += len(text)
        self._entries += entries

    def _rewrite(self, book: OrderBook) -> None:
        """Write all orders into another file, and put that in the place of this one."""
        new = Path(f"{self._path}.new")
        new.unlink(missing_ok=True)
        file = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, _MODE)
        try:
            size = 0
            with background():
                for piece in itertools.chain(pieces(book), [_cursor_line(self.cursors)]):
                    _write_all(file, piece)
                    size += len(piece)
            os.fsync(file)
            new.replace(self._path)
        except BaseException:
            os.close(file)
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        if self._file != _CLOSED:
            os.close(self._file)
        self._file, self._size, self._lacks_some = file, size, False
        self._entries = len(book) + len(book.tokens)
        _sync_folder(self._path.parent)

    def _close(self) -> None:
        file, lock, self._file, self._lock = self._file, self._lock, _CLOSED, _CLOSED
        for each in (file, lock):
            if each != _CLOSED:
                os.close(each)


def line_of(order: Order) -> bytes:
    """Return the line of an order."""
    return b'{"at":%d,%s\n' % (order.at, order.text()[1:])


def read_line(line: bytes) -> tuple[list[Order], list[tuple[str, float]]]:
    """Return the order of a line, and the tokens that it lists; a line that tells how far a source is, has neither.

    Raises:
        ConfigError: it is no such line.

    """
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        raise ConfigError("not JSON") from None
    if not isinstance(told, dict):
        raise ConfigError("not a JSON object")
    if "cursors" in told:
        return [], []
    if "tokens" in told:
        return [], _listed(told["tokens"])
    at = told.get("at")
    if not isinstance(at, int) or isinstance(at, bool):
        raise ConfigError("at: missing, or not a number of microseconds since 1970")
    order = Order.of(told, at)
    if order.is_listing:
        return [], [(member(order.id, order.issuer), order.until or 0)]
    return [order], []


def _cursors_of(line: bytes) -> dict[str, Any]:
    """Return what a line of :func:`_cursor_line` says; nothing if it is another one."""
    told = json.loads(line)["cursors"] if line.startswith(_CURSORS) else {}
    return told if isinstance(told, dict) else {}


def _cursor_line(cursors: Mapping[str, Any]) -> bytes:
    return _CURSORS + json.dumps(cursors, separators=(",", ":")).encode() + b"}\n" if cursors else b""


def _listed(tokens: object) -> list[tuple[str, float]]:
    try:
        listed = [(name, end) for name, end in tokens]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        listed = [("", 0)]
    if not all(isinstance(name, str) and " " in name and isinstance(end, int | float) for name, end in listed):
        raise ConfigError("tokens: not a list of names and ends")
    return listed


def pieces(book: OrderBook) -> Iterator[bytes]:
    """Yield all lines of a file with these orders, some at a time."""
    for orders in _some_of(order for order in book if order.verb != "renew"):
        yield b"".join(map(line_of, orders))
    for tokens in _some_of(book.tokens):
        yield json.dumps({"tokens": tokens}, separators=(",", ":")).encode() + b"\n"


def _some_of(many: Iterable[T]) -> Iterator[list[T]]:
    left = iter(many)
    while some := list(itertools.islice(left, _AT_ONCE)):
        yield some


def _locked(path: str) -> int:
    """Return the file that only one process at a time can have.

    Raises:
        ConfigError: another has it.

    """
    check_posix("orders")
    import fcntl  # noqa: PLC0415 - not there on Windows

    file = os.open(path, os.O_RDWR | os.O_CREAT, _MODE)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        path = path.removesuffix(".lock")
        raise ConfigError(f"orders: {path!a} is in use by another process; give each its own") from None
    return file


def _is_there(path: Path, file: int) -> bool:
    """Whether the file of that name still is the one that was opened."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _write_all(file: int, text: bytes) -> None:
    left = memoryview(text)
    while left:
        left = left[os.write(file, left) :]


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
