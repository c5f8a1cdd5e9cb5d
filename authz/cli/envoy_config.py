"""``authz envoy-config``."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from authz.cli.app import ALLOWED, write
from authz.envoy.access_log.address import check_access_log_address
from authz.envoy.config import browsers, edge, formats, kubernetes, memo, mesh
from authz.envoy.config.addresses import check_listening
from authz.envoy.config.annotated import Document, render
from authz.envoy.config.authz_cluster import Tls, check_authz_address, endpoints
from authz.errors import ConfigError
from authz.runtime.network.addresses import check_address
from authz.settings.settings import Settings

Format = Literal["bootstrap", "filter", "istio", "envoy-gateway", "kubernetes"]
_IN_CLUSTER = ("istio", "envoy-gateway", "kubernetes")
# With less, Envoy would refuse everything from the start.
_LEAST_HEAP = 64 << 20


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Around:
    """The configuration around the check."""

    upstream: str | None = None
    """HOST:PORT or unix:PATH of the gRPC backend; needed for a bootstrap."""
    http_upstream: str | None = None
    """HOST:PORT or unix:PATH of a plain HTTP backend; without one Envoy answers 404 to requests that are not gRPC."""
    listen: str = "127.0.0.1:10000"
    """Where Envoy listens."""
    admin: str | None = None
    """HOST:PORT of Envoy's administration interface; none by default."""
    max_heap_bytes: Annotated[int, Parameter(validator=validators.Number(gte=_LEAST_HEAP))] = edge.HEAP_BYTES
    """The memory that Envoy may have allocated before it refuses requests; keep it below its container's limit."""

    cors_origin: list[str] | None = None
    """Origin of the pages that may call from a browser, such as https://app.example; may be given several times."""
    grpc_web: Annotated[bool, Parameter(negative=())] = False
    """Let callers speak gRPC-Web to the gRPC backend."""
    remember: Annotated[bool, Parameter(negative=())] = False
    """Have Envoy repeat answers for as long as the server says (AUTHZ_REMEMBER), instead of asking every time."""
    xds: str | None = None
    """Where Envoy hears that it must ask again: as the server's xds, and by default the setting in force."""
    access_log: str | None = None
    """Where Envoy tells of the answers that it repeats: as access_log_listen, and by default the setting in force."""

    def ingress(self, authz: list[str], tls: Tls) -> formats.Ingress:
        """Return it with its check, or raise ConfigError."""
        if self.upstream is None:
            raise ConfigError("upstream: missing; set --upstream, such as 127.0.0.1:50051")
        for name in ("upstream", "http_upstream", "listen", "admin"):
            address = getattr(self, name)
            if address is not None:
                check_address(name, address)
                if name in ("listen", "admin"):
                    check_listening(name, address)
        return formats.Ingress(
            authz=authz,
            tls=tls,
            upstream=self.upstream,
            http_upstream=self.http_upstream,
            listen=self.listen,
            admin=self.admin,
            max_heap_bytes=self.max_heap_bytes,
            cors_origins=self.origins(),
            grpc_web=self.grpc_web,
            xds=memo.check_xds(self.xds) if self.remember else None,
        )

    def told(self, workers: int) -> list[str]:
        """Return the endpoints where Envoy tells of the answers that it repeats, or raise ConfigError."""
        if self.access_log is None or not self.remember:
            return []
        check_access_log_address(self.access_log, "access_log")
        return endpoints([self.access_log], workers=workers)

    def origins(self) -> list[str]:
        """Return the origins, or raise ConfigError."""
        return [browsers.check_origin("cors_origin", origin) for origin in self.cors_origin or ()]


def envoy_config(
    *,
    format: Format = "bootstrap",  # noqa: A002 - the flag's name
    around: Around | None = None,
    authz: list[str] | None = None,
    workers: int | None = None,
    authz_ca_file: Path | None = None,
    authz_cert_file: Path | None = None,
    authz_key_file: Path | None = None,
    config: str | None = None,
    env_file: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Print a configuration for Envoy, with comments, that asks `authz serve` about every request.

    Unless --authz is given, its address is read from the settings in force (AUTHZ_LISTEN, AUTHZ_WORKERS).

    Parameters
    ----------
    format
        A complete bootstrap; only the filters and the cluster, for a bootstrap of your own; or the resources of Istio,
        Envoy Gateway, or Kubernetes.
    authz
        HOST:PORT, tls:HOST:PORT or unix:PATH of `authz serve`; may be given several times. On Kubernetes
        NAME.NAMESPACE.svc.cluster.local:PORT.
    workers
        Processes per address: a unix:PATH then stands for PATH.0, PATH.1, and so on.
    authz_ca_file
        PEM file of the CAs to trust for tls:HOST:PORT; by default the system's.
    authz_cert_file
        PEM file of Envoy's own certificate, if the server asks for one.
    authz_key_file
        PEM file of its key.
    config
        A file of settings by their names (YAML, TOML or JSON). By default none is read.
    env_file
        A file of settings, in lines AUTHZ_NAME=VALUE. By default none is read.
    as_json
        Print JSON, without comments.

    """
    files = {"config": config, "env_file": env_file}
    settings = Settings.load(**{name: path for name, path in files.items() if path is not None})
    around = _remembering(around or Around(), settings, format)
    tls = Tls(ca_file=_text(authz_ca_file), cert_file=_text(authz_cert_file), key_file=_text(authz_key_file))
    if format in _IN_CLUSTER:
        documents = _in_cluster(format, around, authz, settings, tls)
    else:
        # Only the first address: the others lead to the same servers.
        setting, addresses = ("authz", authz) if authz else ("listen", settings.listen[:1])
        for address in addresses:
            check_authz_address(setting, address)
        workers = settings.workers if workers is None else workers
        where = endpoints(addresses, workers=workers)
        if format == "bootstrap":
            ingress = replace(around.ingress(where, tls), access_log=around.told(workers))
            documents = [formats.bootstrap(ingress)]
        else:
            documents = [formats.fragment(where, tls, cors_origins=around.origins(), grpc_web=around.grpc_web)]
    write(_as_json(documents) if as_json else render(documents))
    return ALLOWED


def _remembering(around: Around, settings: Settings, format: Format) -> Around:  # noqa: A002 - as above
    """Return it with what the settings say of remembered answers, or raise ConfigError if they cannot be."""
    for name in ("xds", "access_log"):
        if getattr(around, name) is not None and not around.remember:
            raise ConfigError(f"{name}: only together with --remember")
    if around.remember and format in ("filter", "istio", "envoy-gateway"):
        raise ConfigError(
            f"remember: not for --format {format}: an answer holds for a path, whatever its route asks for "
            "(context_extensions), and the routes are not seen here; --format bootstrap has none that ask for more"
        )
    if around.remember and format == "kubernetes":
        raise ConfigError(
            "remember: not for --format kubernetes: Envoy asks several pods there, and each takes back only what it "
            "said itself; use --format bootstrap for an Envoy in the server's pod"
        )
    return replace(
        around,
        xds=settings.xds if around.xds is None else around.xds,
        access_log=settings.access_log_listen if around.access_log is None else around.access_log,
    )


def _in_cluster(
    format: Format,  # noqa: A002 - as above
    around: Around,
    authz: list[str] | None,
    settings: Settings,
    tls: Tls,
) -> list[Document]:
    service = mesh.Service.parse("authz", authz[0]) if authz else mesh.Service()
    if format != "kubernetes":
        if around.grpc_web:
            raise ConfigError(f"grpc_web: not for --format {format}, where the control plane adds the filter")
        return {"istio": mesh.istio, "envoy-gateway": mesh.envoy_gateway}[format](service, around.origins())
    scheme = "" if settings.tls_cert_file is None else "tls:"
    if settings.tls_client_ca_file is not None and tls.cert_file is None:
        raise ConfigError("authz_cert_file: missing; with tls_client_ca_file Envoy needs a certificate of its own")
    ingress = around.ingress([f"{scheme}{service.host}:{service.port}"], tls)
    return kubernetes.kubernetes(service, settings, formats.bootstrap(ingress))


def _as_json(documents: list[Document]) -> str:
    if len(documents) > 1:
        raise ConfigError("json: only --format bootstrap and --format filter print a single document, which JSON needs")
    return json.dumps(documents[0].data, indent=2) + "\n"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
