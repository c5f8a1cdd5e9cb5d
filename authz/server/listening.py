"""Where one server process listens, and how, as the settings say."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from authz.envoy.access_log.address import check_access_log_address
from authz.errors import ConfigError
from authz.runtime.network.addresses import parse_all, socket_paths
from authz.runtime.network.unix_sockets import Permissions, check_not_in_use
from authz.server.serving import server
from authz.server.serving.certificates import Certificates
from authz.server.workers.worker import Worker
from authz.settings.settings import Settings


class Listening(NamedTuple):
    """Where and how a process listens.

    Attributes:
        listen: the addresses for Envoy.
        audit: the address for watchers of decisions, if there is to be one.
        access_log: the address where Envoy tells of calls, if there is to be one.
        forward_auth: the address where other proxies ask over HTTP, if there is to be one.
        certificates: of the addresses for Envoy with TLS.
        forward_auth_certificates: of the address for other proxies, if it has TLS.
        permissions: of the Unix sockets.

    """

    listen: Sequence[str]
    audit: str | None
    access_log: str | None
    forward_auth: str | None
    certificates: Certificates | None
    forward_auth_certificates: Certificates | None
    permissions: Permissions

    @classmethod
    def of(cls, settings: Settings, worker: Worker | None = None) -> Self:
        """Return what the settings ask for, checked as far as it can be without binding anything.

        Args:
            settings: the settings.
            worker: which of several workers this process is: Unix sockets then have its number in their names.

        Raises:
            ConfigError: a setting is missing or cannot work.

        """
        certificates = Certificates.configured(
            settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file
        )
        permissions = Permissions.parse(settings.socket_mode, settings.socket_owner)
        listen = settings.listen if worker is None else worker.listen
        of_listen = certificates
        if not any(address.kind == "tls" for address in parse_all(listen)) and _are_used_elsewhere(settings):
            of_listen = None
        engine, reflection = settings.engine, settings.reflection
        server.checked_addresses(listen, engine=engine, certificates=of_listen, reflection=reflection)
        audit = settings.audit_listen
        if audit is not None:
            _check_audit(audit, settings.listen)
            audit = audit if worker is None else f"{audit}.{worker.number}"
        access_log = settings.access_log_listen
        if access_log is not None:
            _check_access_log(access_log, settings)
            access_log = access_log if worker is None else f"{access_log}.{worker.number}"
        forward_auth = settings.forward_auth
        _check_forward_auth(settings, certificates)
        if forward_auth is not None and forward_auth.startswith("unix:") and worker is not None:
            forward_auth = f"{forward_auth}.{worker.number}"
        of_http = certificates if forward_auth is not None and forward_auth.startswith("tls:") else None
        return cls(listen, audit, access_log, forward_auth, of_listen, of_http, permissions)

    def check_sockets_are_free(self) -> None:
        """Check that no other server listens on the Unix sockets for Envoy.

        Raises:
            ConfigError: one does.

        """
        check_not_in_use(socket_paths(parse_all(self.listen)))


def _check_audit(address: str, listen: Sequence[str]) -> None:
    from authz.decisions.audit import check_audit_address  # noqa: PLC0415 - not needed without watchers

    check_audit_address(address)
    _check_is_free("audit_listen", address, "listen", listen)


def _check_access_log(address: str, settings: Settings) -> None:
    check_access_log_address(address)
    _check_is_free("access_log_listen", address, "listen", settings.listen)
    if settings.audit_listen is not None and settings.audit_listen.startswith("unix:"):
        _check_is_free("access_log_listen", address, "audit_listen", [settings.audit_listen])


def _are_used_elsewhere(settings: Settings) -> bool:
    # By the server that tells Envoy what to forget, or by the one that other proxies ask.
    return any((address or "").startswith("tls:") for address in (settings.xds, settings.forward_auth))


def _check_forward_auth(settings: Settings, certificates: Certificates | None) -> None:
    address = settings.forward_auth
    if (address is None) is not (settings.forward_auth_headers is None):
        missing = "forward_auth" if address is None else "forward_auth_headers"
        raise ConfigError(
            f"{missing}: missing; with the address goes what names the request: original for nginx, "
            "forwarded for Traefik and Caddy, none for Envoy"
        )
    if address is None:
        return
    from authz.server.forward_auth.listener import check_forward_auth_address  # noqa: PLC0415 - seldom needed

    check_forward_auth_address(address)
    if address.startswith("tls:") and certificates is None:
        raise ConfigError(f"tls_cert_file: missing; {address!a} needs tls_cert_file and tls_key_file")
    if settings.workers > 1 and address.endswith(":0"):
        raise ConfigError(f"forward_auth: with several workers {address!a} needs a port other than 0")
    taken = [settings.audit_listen, settings.access_log_listen]
    _check_is_free("forward_auth", address, "listen", settings.listen)
    _check_is_free("forward_auth", address, "audit_listen or access_log_listen", [one for one in taken if one])


def _check_is_free(setting: str, address: str, other: str, taken: Sequence[str]) -> None:
    sockets = {Path(path).absolute() for path in socket_paths(parse_all(taken))}
    if Path(address.removeprefix("unix:")).absolute() in sockets:
        raise ConfigError(f"{setting}: {address!a} stands in {other}, too; choose another path")
