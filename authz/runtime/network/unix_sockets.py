"""Unix sockets with the right permissions from the start, which never replace a serving server's by mistake.

A socket is bound under a name of its own beside ``PATH``, accessible only to its owner;
once its permissions are right it is renamed to ``PATH``. So a successor takes over from a
running server without a moment in which no server listens, and a server that ends removes
only its own socket: gRPC would unlink by name, whichever server's socket it is by then.
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
from authz.runtime.configuration import check_posix

# sockaddr_un.sun_path has 108 bytes, and the last is zero.
_MAX_PATH_BYTES = 107

_CONNECT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """Who may connect to a Unix socket.

    Args:
        mode: permission to write to the file is permission to connect. By default only the owner's, because the socket
            says whether a token is good, and operators rarely consider the group or ``umask`` of a process.
        uid: the owner, or -1 for the process's.
        gid: the group, or -1 for the process's.

    """

    mode: int = 0o600
    uid: int = -1
    gid: int = -1

    @classmethod
    def parse(cls, mode: str | None = None, owner: str | None = None) -> Self:
        """Return the permissions of the settings ``socket_mode`` and ``socket_owner``.

        Args:
            mode: octal digits such as ``0660``. By default the owner may connect, and the group if ``owner`` names one.
            owner: ``user``, ``user:group`` or ``:group``, by name or by number.

        Raises:
            ConfigError: there is no such mode, user or group.

        """
        user, _, group = (owner or "").partition(":")
        if owner is not None and not user and not group:
            raise ConfigError("socket_owner: give user, user:group or :group")
        if mode is None:
            mode = "0660" if group else "0600"
        if not re.fullmatch(r"(0o?)?[0-7]{3}", mode):
            raise ConfigError(f"socket_mode: {mode!a} is not octal permissions such as 0660")
        check_posix("socket_mode")
        # Windows has neither these modules nor sockets with owners.
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
        """Remove it, unless a successor's has replaced it; call this before closing it, which frees the inode."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self.identity:
                Path(self.path).unlink()


def bind_socket(
    path: str, permissions: Permissions, bind: Callable[[str], object], *, setting: str = "listen"
) -> OwnSocket:
    """Have ``bind`` listen on a socket at ``path``, in place of any socket there.

    Args:
        path: the socket's.
        permissions: who may connect.
        bind: listens on the path that it is given.
        setting: what to call it in an error.

    Raises:
        ConfigError: the socket cannot be bound, or not with that owner.

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
    """Check that a socket can be bound at ``path``.

    Args:
        path: of the socket.
        setting: what to call it in an error.

    Raises:
        ConfigError: the path is too long, its folder does not exist, or it is a file other than a socket.

    """
    check_posix(f"{setting}: a Unix socket")
    refused = f"{setting}: {'unix:' + path!a} cannot be bound: "
    if max(len(os.fsencode(name)) for name in (path, _beside(path))) > _MAX_PATH_BYTES:
        raise ConfigError(f"{refused}the path is longer than {_MAX_PATH_BYTES} bytes; choose a shorter one")
    if not Path(path).parent.is_dir():
        raise ConfigError(f"{refused}there is no such folder; create it first")
    if not os.access(Path(path).parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{refused}this process may not write to its folder; choose another")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise ConfigError(f"{refused}there is a file that is not a socket; remove it, or choose another path")


def check_not_in_use(paths: Iterable[str], setting: str = "listen") -> None:
    """Check that no server listens on the sockets at ``paths``; a server that takes over does not call this.

    Args:
        paths: those of sockets, which need not exist.
        setting: what to call them in an error.

    Raises:
        ConfigError: a server listens there, or may listen.

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
            # A full queue means that a server listens.
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
