"""Asks a running authorization server as Envoy does."""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from authz.envoy.check.servicer import SERVICE
from authz.envoy.v3.external_auth_pb2 import (
    Address as PeerAddress,
)
from authz.envoy.v3.external_auth_pb2 import (
    AttributeContext,
    CheckRequest,
    CheckResponse,
    HeaderMap,
    HeaderValue,
    SocketAddress,
)
from authz.errors import ConfigError
from authz.runtime.network.addresses import Address

_HOST = "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFiles:
    """PEM files for ``tls:`` addresses.

    Args:
        ca_file: the CAs to trust, if not the system's.
        cert_file: our own certificate, for mutual TLS.
        key_file: its private key.

    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials of a channel.

        Raises:
            ConfigError: a file cannot be read, or a certificate or key lacks the other.

        """
        if (self.cert_file is None) is not (self.key_file is None):
            raise ConfigError("cert_file: give --cert-file and --key-file, or neither")
        return grpc.ssl_channel_credentials(
            _read("ca_file", self.ca_file), _read("key_file", self.key_file), _read("cert_file", self.cert_file)
        )


def question(
    path: str,
    headers: Iterable[tuple[str, str]],
    context: Mapping[str, str],
    *,
    is_http: bool = False,
    verb: str = "",
) -> CheckRequest:
    """Return what Envoy asks about one request of a caller.

    Args:
        path: ``/package.Service/Method``, or a path of HTTP.
        headers: the headers that the caller sends.
        context: ``context_extensions`` of the route.
        is_http: whether it is a plain HTTP request.
        verb: its HTTP method; by default GET, or POST for gRPC.

    """
    method = verb or ("GET" if is_http else "POST")
    kind = [] if is_http else [("content-type", "application/grpc"), ("te", "trailers")]
    sent = [(":authority", _HOST), (":path", path), (":method", method), (":scheme", "https"), *kind, *headers]
    http = AttributeContext.HttpRequest(
        method=method,
        path=path,
        host=_HOST,
        scheme="https",
        protocol="HTTP/2",
        size=0 if is_http else -1,
        # As with encode_raw_headers.
        header_map=HeaderMap(headers=[HeaderValue(key=key, raw_value=os.fsencode(value)) for key, value in sent]),
    )
    now = Timestamp()
    now.FromNanoseconds(time.time_ns())
    caller = AttributeContext.Peer(address=PeerAddress(socket_address=SocketAddress(address="127.0.0.1")))
    request = AttributeContext.Request(time=now, http=http)
    return CheckRequest(attributes=AttributeContext(source=caller, request=request, context_extensions=context))


def ask(server: Address, files: ClientFiles, request: CheckRequest, timeout: float) -> CheckResponse:
    """Return the answer of ``server``.

    Raises:
        ConfigError: a file cannot be used, or is given for an address without TLS.
        grpc.RpcError: there is no answer within ``timeout`` seconds.

    """
    options = [("grpc.enable_http_proxy", 0)]
    if server.kind == "tls":
        channel = grpc.secure_channel(server.target, files.credentials(), options)
    elif files != ClientFiles():
        raise ConfigError("ca_file, cert_file, key_file: they are for --server tls:HOST:PORT")
    else:
        channel = grpc.insecure_channel(server.target, options)
    with channel:
        check: grpc.UnaryUnaryMultiCallable[CheckRequest, CheckResponse] = channel.unary_unary(
            f"/{SERVICE}/Check", CheckRequest.SerializeToString, CheckResponse.FromString
        )
        return check(request, timeout=timeout)


def _read(setting: str, file: Path | None) -> bytes | None:
    try:
        return None if file is None else file.read_bytes()
    except OSError:
        raise ConfigError(f"{setting}: {str(file)!a} cannot be read") from None
