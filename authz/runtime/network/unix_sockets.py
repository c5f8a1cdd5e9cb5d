"""Unix sockets that are never open wider than they should be, and never taken from anybody who serves.

A socket is bound under a name of its own beside ``PATH``, for its owner alone;
once its permissions are right it is renamed to ``PATH``. So a successor takes
over from a server that still runs without a moment in which nobody listens,
and whoever ends takes away its own socket only: gRPC unlinks by name,
whosever the socket is by then.
"""

import contextlib
import os
import re
import secrets
import socket
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from authz.errors import ConfigError

# sockaddr_un.sun_path has 108 bytes, and the last is zero.
_MAX_PATH_BYTES = 107

_CONNECT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """Who may connect to a Unix socket.

    Args:
        mode: whoever may write to the file may connect. As narrow as can be by default, for the socket answers
            whether a token is good: what a process's group or ``umask`` stands for, nobody thinks of.
        uid: the owner, or -1 for that of the process.
        gid: the group, or -1 for that of the process.

    """

    mode: int = 0o600
    uid: int = -1
    gid: int = -1

    @classmethod
    def parse(cls, mode: str | None = None, owner: str | None = None) -> Self:
        """Return what the settings ``socket_mode`` and ``socket_owner`` say.

        Args:
            mode: octal digits such as ``0660``. By default the owner may connect, and the group if ``owner`` names one.
            owner: ``user``, ``user:group`` or ``:group``, by name or by number.

        Raises:
            ConfigError: no such mode, user or group.

        """
        user, _, group = (owner or "").partition(":")
        if owner is not None and not user and not group:
            raise ConfigError("socket_owner: give user, user:group or :group")
        if mode is None:
            mode = "0660" if group else "0600"
        if not re.fullmatch(r"(0o?)?[0-7]{3}", mode):
            raise ConfigError(f"socket_mode: {mode!a} is not octal permissions such as 0660")
        # Not there on Windows, where neither is a socket that has an owner.
        import grp  # noqa: PLC0415
        import pwd  # noqa: PLC0415

        uid = _number(user, "user", lambda name: pwd.getpwnam(name).pw_uid)
        gid = _number(group, "group", lambda name: grp.getgrnam(name).gr_gid)
        return cls(mode=int(mode, 8), uid=uid, gid=gid)


@dataclass(frozen=True, slots=True)
class OwnSocket:
    """A socket that this process has bound; ``identity`` is its device and inode."""

    path: str
    identity: tuple[int, int]

    def remove(self) -> None:
        """Take it away, unless a successor's has taken its place; before it is closed, for then the inode is free."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self.identity:
                Path(self.path).unlink()


def bind_socket(
    path: str, permissions: Permissions, bind: Callable[[str], object], *, setting: str = "listen"
) -> OwnSocket:
    """Have ``bind`` listen on a socket at ``path``, whatever socket was there before.

    Args:
        path: of the socket.
        permissions: who may connect.
        bind: listens on the path that it is given.
        setting: what to call it in an error.

    Raises:
        ConfigError: there can be no socket, or not of that owner.

    """
    check_path(path, setting)
    temporary = _beside(path)
    before = os.umask(0o177)
    try:
        bind(temporary)
    finally:
        os.umask(before)
    try:
        os.chown(temporary, permissions.uid, permissions.gid)
        Path(temporary).chmod(permissions.mode)
        identity = _identity(temporary)
        check_path(path, setting)
        Path(temporary).replace(path)
    except PermissionError:
        _unlink(temporary)
        raise ConfigError(
            "socket_owner: this process may not give a socket away; run it as root, or as a member of the group"
        ) from None
    except (OSError, ConfigError):
        _unlink(temporary)
        raise
    return OwnSocket(path, identity)


def check_path(path: str, setting: str = "listen") -> None:
    """Check that there can be a socket at ``path``.

    Args:
        path: of the socket.
        setting: what to call it in an error.

    Raises:
        ConfigError: the path is too long, has no folder, or is a file that is no socket.

    """
    refused = f"{setting}: {'unix:' + path!a} cannot be bound: "
    if max(len(os.fsencode(name)) for name in (path, _beside(path))) > _MAX_PATH_BYTES:
        raise ConfigError(f"{refused}the path is longer than {_MAX_PATH_BYTES} bytes; choose a shorter one")
    if not Path(path).parent.is_dir():
        raise ConfigError(f"{refused}there is no such folder; create it first")
    if not os.access(Path(path).parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{refused}this process may not write to its folder; choose another")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise ConfigError(f"{refused}there is a file that is no socket; remove it, or choose another path")


def check_nobody_answers(paths: Iterable[str], setting: str = "listen") -> None:
    """Check that no server listens on the sockets at ``paths``; a server that is to take over does not ask.

    Args:
        paths: of sockets, which need not exist.
        setting: what to call them in an error.

    Raises:
        ConfigError: a server listens there, or it cannot be found out.

    """
    for path in paths:
        if not _is_free(path):
            raise ConfigError(
                f"{setting}: {'unix:' + path!a} cannot be bound: another server listens there; "
                "end it, or choose another path"
            )


def _is_free(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_CONNECT_SECONDS)
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return True
        except OSError:
            # A queue that is full has somebody behind it.
            return False
    return False


def _beside(path: str) -> str:
    return str(Path(path).parent / f".{secrets.token_hex(4)}")


def _identity(path: str) -> tuple[int, int]:
    found = Path(path).lstat()
    return found.st_dev, found.st_ino


def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _number(name: str, kind: str, look_up: Callable[[str], int]) -> int:
    if not name:
        return -1
    if name.isascii() and name.isdecimal():
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise ConfigError(f"socket_owner: there is no {kind} {name!a} on this machine") from None
