"""Where Envoy tells of calls."""

from authz.errors import ConfigError
from authz.runtime.network.unix_sockets import check_path

SETTING, SOCKET = "access_log_listen", "unix:"


def check_access_log_address(address: str, setting: str = SETTING) -> None:
    """Check that ``address`` is a Unix socket, without binding it.

    Raises:
        ConfigError: it is not; the message names ``setting``.

    """
    if not address.startswith(SOCKET) or address == SOCKET:
        raise ConfigError(
            f"{setting}: {address!a} is not unix:PATH; a client that connects there writes into the audit"
        )
    check_path(address.removeprefix(SOCKET), setting)
