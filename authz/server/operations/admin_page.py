"""Serving the admin page: the single process does it, or the supervisor of several workers."""

import contextlib
from collections.abc import AsyncIterator

from authz.errors import ConfigError
from authz.runtime import telemetry
from authz.runtime.network.addresses import parse
from authz.server.admin.backend import Source
from authz.settings.settings import Settings

_ANY_HOST = ("", "0.0.0.0", "::")  # noqa: S104 - what is compared


def check_admin_settings(settings: Settings) -> None:
    """Check all settings of the page, as far as possible without binding its address.

    Raises:
        ConfigError: a setting cannot work.

    """
    settings.admin_secret_text()
    if settings.admin is None:
        return
    address = parse("admin", settings.admin)
    if address.kind != "tcp":
        raise ConfigError(f"admin: {settings.admin!a} is not HOST:PORT, such as 127.0.0.1:9902")
    if not address.is_local and not settings.admin_allow_remote:
        raise ConfigError(
            f"admin: {settings.admin!a} can be reached by other machines, and the page has no TLS and shows every "
            "caller; use a loopback address, or set admin_allow_remote"
        )


@contextlib.asynccontextmanager
async def serving(settings: Settings, source: Source) -> AsyncIterator[None]:
    """Serve the page until the end of the block, if the settings ask for one.

    Args:
        settings: the settings.
        source: what the page asks: this process, or its workers.

    Raises:
        ConfigError: a setting cannot work, or the address cannot be bound.

    """
    check_admin_settings(settings)
    if settings.admin is None:
        yield
        return
    # Imported late: they take a while to load, and most servers have no page.
    from authz.server.admin.app import admin_app  # noqa: PLC0415
    from authz.server.admin.usage import Used, usage_of  # noqa: PLC0415
    from authz.server.operations import web  # noqa: PLC0415

    address = parse("admin", settings.admin)
    if not address.is_local:
        telemetry.event(telemetry.WARNING, "admin_without_tls", address=address.text)
    host = address.target.rpartition(":")[0].strip("[]").lower()
    used = Used(usage_of(settings), settings.usage_days)
    hosts = None if host in _ANY_HOST else frozenset([host])
    app = admin_app(source, secret=settings.admin_secret_text(), hosts=hosts, used=used)
    async with web.serving(app, settings.admin, setting="admin", event="admin"):
        yield
