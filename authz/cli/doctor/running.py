"""A server that listens already: whether it is one of ours, and what it says of itself; else which program it is."""

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from authz.cli.doctor.findings import Finding, fault, ok, skipped
from authz.cli.doctor.subject import Subject
from authz.runtime.network.addresses import parse
from authz.runtime.network.transport import TransportError
from authz.settings.settings import Settings

SERVING = "SERVING"
WITH_OUR_CERTIFICATE = "has our certificate"

_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what is replaced

# In /proc/net/tcp: the local address, the state, the inode.
_LOCAL, _STATE, _INODE = 1, 3, 9
_LISTENING = "0A"


def status_of(address: str, settings: Settings, timeout: float) -> str:
    """Return what a server of ours at ``address`` says of its health; empty if there is none.

    Args:
        address: HOST:PORT, tls:HOST:PORT or unix:PATH.
        settings: those that name our own certificate.
        timeout: seconds to wait.

    """
    parsed = parse("listen", address)
    if parsed.kind == "tls":
        return WITH_OUR_CERTIFICATE if _shows_our_certificate(parsed.target, settings, timeout) else ""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc  # noqa: PLC0415 - only where a server listens
    from grpc_health.v1 import health_pb2  # noqa: PLC0415 - as above

    from authz.envoy.check.servicer import SERVICE  # noqa: PLC0415 - as above

    # Another server answers that it has no such service.
    request = health_pb2.HealthCheckRequest(service=SERVICE)
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(_reachable(parsed.target), options=options) as channel:
        ask = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = ask(request, timeout=timeout)
        except grpc.RpcError:
            return ""
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def _reachable(target: str) -> str:
    host, _, port = target.rpartition(":")
    return f"{_THIS_MACHINE.get(host, host)}:{port}"


def _shows_our_certificate(target: str, settings: Settings, timeout: float) -> bool:
    host, _, port = _reachable(target).rpartition(":")
    # Only compared with our own: nothing is sent.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError, ValueError):
        ours = ssl.PEM_cert_to_DER_cert(_first(Path(str(settings.tls_cert_file)).read_text("ascii")))
        address = host.strip("[]"), int(port)
        with (
            socket.create_connection(address, timeout) as plain,
            context.wrap_socket(plain, server_hostname=None) as connection,
        ):
            return connection.getpeercert(binary_form=True) == ours
    return False


def _first(chain: str) -> str:
    head, end, _ = chain.partition("-----END CERTIFICATE-----")
    return head[head.find("-----BEGIN") :] + end


def check_server(subject: Subject) -> Iterator[Finding]:
    """Say how a server that runs with these settings is."""
    if not subject.serving:
        yield skipped("no server of ours listens at the addresses of --listen")
    for address, status in subject.serving.items():
        if status == SERVING:
            yield ok(f"a server at {address} is {SERVING}")
        elif status == WITH_OUR_CERTIFICATE:
            yield ok(f"a server with our certificate listens at {address}; its health is not asked over TLS")
        else:
            why = _reason(subject)
            yield fault("server-not-serving", f"a server at {address} is {status}{why}", SERVING)


def _reason(subject: Subject) -> str:
    """Return what its probe says, if it has one."""
    address = subject.settings.http_listen
    if address is None:
        return ""
    try:
        answer = subject.ask("GET", f"http://{_reachable(address)}/readyz")
    except TransportError:
        return ""
    return f" ({answer.body.decode('utf-8', 'replace')})"


def program_at(port: int) -> str:
    """Return which program listens on a port of TCP, as far as the system tells this user; else an empty text."""
    inodes = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not inodes:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                if str(descriptor.readlink()) in inodes:
                    return f"{(process / 'comm').read_text('utf-8', 'replace').strip()}, process {process.name}"
    return ""


def _inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[_STATE] == _LISTENING and fields[_LOCAL].endswith(f":{port:04X}"):
                    yield fields[_INODE]
