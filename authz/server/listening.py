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
        certificates: of the addresses with TLS.
        permissions: of the Unix sockets.

    """

    listen: Sequence[str]
    audit: str | None
    access_log: str | None
    certificates: Certificates | None
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
        if not any(address.kind == "tls" for address in parse_all(listen)) and (settings.xds or "").startswith("tls:"):
            # They are those of the other server, which tells Envoy what to forget.
            certificates = None
        engine, reflection = settings.engine, settings.reflection
        server.checked_addresses(listen, engine=engine, certificates=certificates, reflection=reflection)
        audit = settings.audit_listen
        if audit is not None:
            _check_audit(audit, settings.listen)
            audit = audit if worker is None else f"{audit}.{worker.number}"
        access_log = settings.access_log_listen
        if access_log is not None:
            _check_access_log(access_log, settings)
            access_log = access_log if worker is None else f"{access_log}.{worker.number}"
        return cls(listen, audit, access_log, certificates, permissions)

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


def _check_is_free(setting: str, address: str, other: str, taken: Sequence[str]) -> None:
    sockets = {Path(path).absolute() for path in socket_paths(parse_all(taken))}
    if Path(address.removeprefix("unix:")).absolute() in sockets:
        raise ConfigError(f"{setting}: {address!a} stands in {other}, too; choose another path")
