"""``authz healthcheck``: containers run it every few seconds, so it loads little, and no class of settings."""

import json
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authz.cli.app import ALLOWED, DENIED, say
from authz.cli.plain.parser import Parser
from authz.errors import ConfigError, UnavailableError
from authz.runtime.network.addresses import Address, parse
from authz.settings.outside import read_outside

if TYPE_CHECKING:
    import grpc

_CHECK = "/grpc.health.v1.Health/Check"
# HealthCheckResponse with status SERVING; the request of the server as a whole is empty.
_SERVING = b"\x08\x01"
# A Unix socket and plaintext need no certificate.
_NEAREST = ("unix", "tcp", "tls")
_OF_SERVER = ("listen", "http_listen", "workers", "tls_cert_file", "tls_key_file", "tls_client_ca_file")
_MOST = 4096
# Where to ask what listens on all addresses.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "::": "[::1]"}  # noqa: S104 - nothing is bound


def parser() -> Parser:
    """Return the options of the command."""
    parser = Parser(
        "healthcheck",
        "Ask a running `authz serve` on this machine whether it can decide.\n\n"
        "Exit code 0 if it can, 1 if not, 3 without an answer. Where it listens is read from the settings in force, as "
        "the server reads them (AUTHZ_LISTEN).",
    )
    parser.option("listen", "HOST:PORT, tls:HOST:PORT or unix:PATH, if not as set; may be repeated.", action="append")
    parser.option("http", "Ask /readyz where http_listen is, which takes a third less CPU time.", action="store_true")
    parser.option("http-listen", "HOST:PORT of /readyz, if not as set.")
    parser.option("workers", "Processes of the server, if not as set: each has a Unix socket of its own.", type=int)
    parser.option(
        "ca-file", "PEM file of the CAs to trust for tls:, if not the server's own certificate.", metavar="FILE"
    )
    parser.option(
        "cert-file", "PEM file of a certificate to show for mutual TLS, if not the server's own.", metavar="FILE"
    )
    parser.option("key-file", "PEM file of its private key.", metavar="FILE")
    parser.option("timeout", "Seconds to wait.", type=float, default=3.0)
    parser.option("config", "A file of settings by their names; or AUTHZ_CONFIG.", metavar="FILE")
    parser.option("env-file", "A file of variables, in lines AUTHZ_NAME=VALUE; or AUTHZ_ENV_FILE.", metavar="FILE")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command, and return its exit code."""
    given = parser().read(arguments)
    if given is None:
        return ALLOWED
    if not 0 < given.timeout <= 3600:  # noqa: PLR2004 - an hour
        raise ConfigError("timeout: must be seconds, more than 0 and at most 3600")
    settings = _settings(given)
    if given.http:
        return _ask_http(settings, given.timeout)
    for target, is_tls in _targets(settings):
        if not _is_serving(target, settings if is_tls else None, given):
            say(f"NOT_SERVING {target}")
            return DENIED
    say("SERVING")
    return ALLOWED


def _settings(given: Namespace) -> dict[str, Any]:
    outside = read_outside(given.env_file, given.config).values
    flags = {name: getattr(given, name, None) for name in _OF_SERVER}
    return {**{name: outside.get(name) for name in _OF_SERVER}, **{n: v for n, v in flags.items() if v is not None}}


def _targets(settings: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield where gRPC is asked, and whether that has TLS: the nearest address, of each worker if it is theirs."""
    listen = settings["listen"] or "127.0.0.1:9191"
    texts = [text.strip() for text in listen.split(",")] if isinstance(listen, str) else listen
    workers = _workers(settings["workers"])
    address = min((parse("listen", text) for text in texts), key=lambda each: _NEAREST.index(each.kind))
    if address.kind != "unix":
        yield _reachable("listen", address), address.kind == "tls"
        return
    yield from ((address.target if workers == 1 else f"{address.target}.{number}", False) for number in range(workers))


def _workers(value: object) -> int:
    text = "1" if value is None else str(value)
    if not text.isdecimal() or not 1 <= int(text) <= 64:  # noqa: PLR2004 - as the server's
        raise ConfigError("workers: must be from 1 to 64; set AUTHZ_WORKERS or --workers")
    return int(text)


def _reachable(setting: str, address: Address) -> str:
    host, _, port = address.target.rpartition(":")
    if port == "0":
        raise ConfigError(f"{setting}: {address.text!a} is any free port; name the port")
    return f"{_LOOPBACK.get(host, host)}:{port}"


def _is_serving(target: str, tls: Mapping[str, Any] | None, given: Namespace) -> bool:
    # gRPC's core would log, in a format of its own, what comes back as an error anyway.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc  # noqa: PLC0415 - late: --help and --http do without

    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if tls is None:
        channel = grpc.insecure_channel(target, options)
    else:
        credentials, name = _credentials(tls, given)
        channel = grpc.secure_channel(target, credentials, [*options, *name])
    with channel:
        try:
            check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CHECK)
            return check(b"", timeout=given.timeout) == _SERVING
        except grpc.RpcError as error:
            why = {
                "UNAVAILABLE": "it cannot be reached, or needs TLS or a certificate",
                "DEADLINE_EXCEEDED": f"no answer within {given.timeout:g} s",
            }.get(error.code().name, error.code().name)
            raise UnavailableError(f"{target}: {why}") from None


def _credentials(settings: Mapping[str, Any], given: Namespace) -> "tuple[grpc.ChannelCredentials, list[Any]]":
    """Return how the server is believed: by its own certificate, under the name that stands in it."""
    import grpc  # noqa: PLC0415 - as above

    own, key = settings["tls_cert_file"], settings["tls_key_file"]
    shown = (given.cert_file, given.key_file)
    if shown == (None, None) and settings["tls_client_ca_file"] is not None:
        shown = (own, key)
    if (shown[0] is None) is not (shown[1] is None):
        raise ConfigError("cert_file: give --cert-file and --key-file, or neither")
    chain = _read("tls_cert_file", own)
    trusted = _read("ca_file", given.ca_file) or chain
    credentials = grpc.ssl_channel_credentials(trusted, _read("key_file", shown[1]), _read("cert_file", shown[0]))
    return credentials, [("grpc.ssl_target_name_override", _name_of(chain))] if chain is not None else []


def _name_of(chain: bytes) -> str:
    from cryptography import x509  # noqa: PLC0415 - late: only TLS needs it

    try:
        certificate = x509.load_pem_x509_certificate(chain)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        names = x509.SubjectAlternativeName([])
    # Any name does for which the certificate holds.
    hosts = [name.replace("*", "any", 1) for name in names.get_values_for_type(x509.DNSName)]
    hosts += map(str, names.get_values_for_type(x509.IPAddress))
    if not hosts:
        raise ConfigError("tls_cert_file: holds no certificate with the name of a host; give --http, which needs none")
    return hosts[0]


def _read(setting: str, path: str | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError:
        raise ConfigError(f"{setting}: {path!a} cannot be read") from None


def _ask_http(settings: Mapping[str, Any], timeout: float) -> int:
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - late: gRPC does without

    if settings["http_listen"] is None:
        raise ConfigError("http_listen: missing; set AUTHZ_HTTP_LISTEN, such as 127.0.0.1:9192, or leave out --http")
    target = _reachable("http_listen", parse("http_listen", settings["http_listen"]))
    host, _, port = target.rpartition(":")
    connection = HTTPConnection(host.strip("[]"), int(port), timeout=timeout)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        state = json.loads(answer.read(_MOST))
    except (OSError, ValueError, HTTPException):
        raise UnavailableError(f"{target}: no answer of /readyz") from None
    finally:
        connection.close()
    if answer.status == 200:  # noqa: PLR2004 - of HTTP
        say("SERVING")
        return ALLOWED
    say(f"NOT_SERVING {state.get('reason', '')}".rstrip())
    return DENIED
