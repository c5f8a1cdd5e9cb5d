"""Whether answers may be remembered as the settings ask, and where Envoy is told to forget them."""

import stat
from pathlib import Path
from typing import NamedTuple, Self

from authz.errors import ConfigError
from authz.runtime.network.addresses import Address, parse
from authz.runtime.network.unix_sockets import check_path
from authz.settings.settings import Settings

FILE = "file:"
_PRIVATE = 0o077


class Remembering(NamedTuple):
    """What the settings ask for.

    Attributes:
        seconds: how long an answer may be remembered.
        address: where Envoy connects to hear of news, or
        file: where it reads them.

    """

    seconds: float
    address: Address | None
    file: Path | None

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return it, or ``None`` if nothing is to be remembered.

        Raises:
            ConfigError: a setting is missing or cannot work, or another one would not be complete any more.

        """
        if settings.remember is None and settings.xds is None:
            return None
        if settings.remember is None:
            raise ConfigError("remember: missing; xds only serves to take back what Envoy remembers")
        if settings.xds is None:
            raise ConfigError("xds: missing; without it Envoy could not be told to forget what it remembers")
        _check_complete(settings)
        if settings.xds.startswith(FILE):
            return cls(settings.remember, None, checked_file(settings.xds.removeprefix(FILE)))
        return cls(settings.remember, _checked_address(settings), None)


def _check_complete(settings: Settings) -> None:
    """Check that no setting needs to see every call."""
    if settings.shadow is not None:
        raise ConfigError("shadow: a policy on trial must see every call, so not with remember")
    if settings.decision_log == "all" and settings.access_log_listen is None:
        raise ConfigError(
            "decision_log: all would lack the calls whose answers Envoy repeats (remember); set access_log_listen, too"
        )
    if settings.jwt_authn_payload:
        raise ConfigError("jwt_authn_payload: who calls is not in a header then, so not with remember")


def _checked_address(settings: Settings) -> Address:
    address = parse("xds", settings.xds or "")
    if address.kind == "unix":
        check_path(address.path, "xds")
    elif address.kind != "tls" or settings.tls_client_ca_file is None:
        # Whoever answers there has Envoy run a script of theirs.
        raise ConfigError(
            f"xds: {address.text!a} is not safe; give unix:PATH, or tls:HOST:PORT with tls_client_ca_file (mutual TLS)"
        )
    return address


def checked_file(path: str) -> Path:
    """Return the path of the file for Envoy, whose folder must be there, and closed to all other users.

    Raises:
        ConfigError: it is not.

    """
    file = Path(path)
    try:
        mode = file.parent.stat().st_mode
    except OSError:
        mode = 0
    if not path or not stat.S_ISDIR(mode):
        raise ConfigError(f"xds: {'file:' + path!a} has no folder; create it first, with mode 0700")
    if mode & _PRIVATE:
        # Whoever can rename a file into it has Envoy run a script of theirs.
        raise ConfigError(f"xds: other users may reach the folder of {'file:' + path!a}; give it mode 0700")
    return file
