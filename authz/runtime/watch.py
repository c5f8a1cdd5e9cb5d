"""Files that change while a program runs: edited, replaced, or reached through a link that now points elsewhere."""

import contextlib
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from authz.runtime import fork, telemetry
from authz.runtime.configuration import extra
from authz.runtime.threads import restarting

# A file is read once it has been at rest for so long, for some programs write in pieces.
_STILL_MS, _MOST_MS = 100, 400
# How often to look without an event: network file systems send none, and neither does every change of a link.
_LOOK_MS = 1000
# As many links as Linux follows.
_MOST_LINKS = 40

# In bytes: no file that is followed may be so large, and none is read only to find that out.
_LARGEST = 2**30

_Stamp = tuple[int, ...]


class Seen(NamedTuple):
    """A file as it was before it was read.

    Args:
        path: where it is.
        stamp: what changes whenever it is written; ``None`` if there was no file.
        digest: of what was in it.

    """

    path: str
    stamp: _Stamp | None
    digest: bytes | None


_noted: ContextVar[list[Seen] | None] = ContextVar("authz_noted", default=None)


def note(path: str) -> None:
    """Say that a file is about to be read, because another file names it; see :func:`noting`."""
    noted = _noted.get()
    if noted is not None:
        noted.append(Seen(path, _stamp(path), _digest(path)))


@contextlib.contextmanager
def noting() -> Iterator[list[Seen]]:
    """Yield a list that gets every file that is read in the block because another one names it."""
    noted: list[Seen] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


class Files:
    """Some files as they were at the last look.

    Args:
        paths: where they are; they need not exist.
        now: the time of day, in nanoseconds.

    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]], now: Callable[[], int] = time.time_ns) -> None:
        self._now = now
        self._paths = tuple(os.fspath(path) for path in paths)
        self._own = len(self._paths)
        self._stamps = self._stamps_now()
        # Time stamps count in ticks: what is written within the tick of this look changes none.
        self._is_sure = not self._is_fresh(self._stamps)
        self._digests = self._digests_now()

    def have_changed(self) -> bool:
        """Look, and say whether their contents differ from those at the last look that found them at rest."""
        stamps = self._stamps_now()
        if (stamps == self._stamps and self._is_sure) or self._is_fresh(stamps):
            return False
        digests = self._digests_now()
        if stamps != self._stamps_now():
            return False
        self._stamps, self._is_sure = stamps, True
        before, self._digests = self._digests, digests
        return digests != before

    def follow(self, noted: Iterable[Seen]) -> None:
        """Look at those that ``noted`` has as well, instead of those of the last time, from when they were noted on."""
        more = list(noted)
        self._paths = (*self._paths[: self._own], *(each.path for each in more))
        self._stamps[self._own :] = [each.stamp for each in more]
        self._digests[self._own :] = [each.digest for each in more]
        self._is_sure = False

    def forget(self) -> None:
        """Take whatever the next look finds for a change."""
        # No file has an empty digest, and none has none if it is missing.
        self._is_sure, self._digests = False, [b"", *self._digests[1:]]

    def are_fresh(self) -> bool:
        """Say whether one was written just now, so that more may follow."""
        return self._is_fresh(self._stamps_now())

    def are_the_same(self) -> bool:
        """Say whether they are untouched since the last look."""
        return self._stamps_now() == self._stamps

    def folders(self) -> set[str]:
        """Return the folders in which a change shows: that of each file, and of every link on the way to it."""
        return {folder for path in self._paths for folder in _folders_of(path)}

    def _is_fresh(self, stamps: Iterable[_Stamp | None]) -> bool:
        now = self._now()
        # A stamp in the future is by another machine's clock, and says nothing.
        return any(0 <= now - stamp[-1] < _STILL_MS * 1_000_000 for stamp in stamps if stamp is not None)

    def _stamps_now(self) -> list[_Stamp | None]:
        return list(map(_stamp, self._paths))

    def _digests_now(self) -> list[bytes | None]:
        return list(map(_digest, self._paths))


class Watch:
    """Call back whenever files have changed, on a thread of its own.

    Args:
        files: what to watch; changes since those were built count.
        changed: is called with those that have changed. What it raises is logged.

    Raises:
        ConfigError: the extra is not installed.

    """

    def __init__(self, files: Sequence[Files], changed: Callable[[Files], object]) -> None:
        with extra("policy", "reload: it needs the extra 'policy'", package="watchfiles"):
            from watchfiles import watch  # noqa: PLC0415 - the extra's
        timing: dict[str, Any] = {"debounce": _MOST_MS, "step": _STILL_MS, "rust_timeout": _LOOK_MS}
        # No event tells of a change that comes before the first wait: so look after each timeout as well.
        loop: dict[str, Any] = {"yield_on_timeout": True, "raise_interrupt": False, "ignore_permission_denied": True}
        others: dict[str, Any] = {"watch_filter": None, "recursive": False, "debug": False, "force_polling": False}
        self._events = partial(watch, **timing, **loop, **others)
        self._files, self._changed = files, changed
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        fork.register(self, starts_thread=True)

    def start(self) -> None:
        """Begin to watch."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=restarting(self._run), name="authz-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; a call of ``changed`` that was under way has ended when this returns."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def after_fork(self) -> None:
        """Watch in the child as well, if the parent did."""
        if self._thread is not None:
            self.start()

    def _run(self) -> None:
        has_failed = False
        while not self._stop.is_set():
            try:
                self._look_when_told()
                has_failed = False
            except Exception as error:  # noqa: BLE001 - changes must count, whichever error it is
                # Such as too many watches for this machine, or a folder that has just been removed.
                if not has_failed:
                    telemetry.unforeseen("watch", error)
                has_failed = True
                self._stop.wait(_LOOK_MS / 1000)

    def _look_when_told(self) -> None:
        """Look whenever something happens near a file, until the files are in other folders."""
        self._look()
        folders = self._folders()
        with contextlib.closing(self._events(*sorted(path for path, _ in folders), stop_event=self._stop)) as events:
            for _ in events:
                self._look()
                while any(files.are_fresh() for files in self._files) and not self._stop.wait(_STILL_MS / 1000):
                    self._look()
                if self._folders() != folders:
                    return

    def _look(self) -> None:
        for files in self._files:
            if files.have_changed():
                self._changed(files)

    def _folders(self) -> set[tuple[str, int]]:
        # With their inode numbers: a folder that was made anew under the same name is another one.
        return {(folder, Path(folder).stat().st_ino) for files in self._files for folder in files.folders()}


def _stamp(path: str) -> _Stamp | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest(path: str) -> bytes | None:
    try:
        found = Path(path).stat()
        # A pipe would be waited for, and what is read from it here would be missing there.
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            return None
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def _folders_of(path: str) -> Iterator[str]:
    """Yield the folder of a file, and that of each link on the way to it."""
    *folders, name = Path(path).absolute().parts
    place, rest, links = Path(), [*folders, name], 0
    while rest:
        step = place / rest.pop(0)
        if rest and step.name == "..":
            place = place.parent
        elif step.is_symlink() and links < _MOST_LINKS:
            yield str(_existing(place))
            links += 1
            rest = [*step.readlink().parts, *rest]
        elif rest:
            place = step
    yield str(_existing(place))


def _existing(folder: Path) -> Path:
    return folder if folder.is_dir() or folder == folder.parent else _existing(folder.parent)
