"""``authz check``."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from authz.cli.app import ALLOWED, DENIED, UNDECIDED, header_of, say, secret_in, write
from authz.errors import ConfigError
from authz.issuer.explanation import explain_reason, unverified
from authz.runtime.network import addresses

_STATUSES = {"allowed": ALLOWED, "denied": DENIED, "undecided": UNDECIDED}


def check(
    *,
    method: str,
    token: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    server: str = "127.0.0.1:9191",
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    header: list[str] | None = None,
    context: list[str] | None = None,
    http: bool = False,
    verb: str = "",
    insecure_channel: bool = False,
    timeout: float = 5.0,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Ask a running `authz serve` about one request, as Envoy would, and explain its verdict.

    Parameters
    ----------
    method
        /package.Service/Method, or with --http a path.
    token
        A file that holds the caller's token; - is standard input. Without it the request has none.
    server
        HOST:PORT, tls:HOST:PORT or unix:PATH of the server.
    ca_file
        PEM file of the CAs to trust, for tls:; by default gRPC's.
    cert_file
        PEM file of our own certificate, for mutual TLS.
    key_file
        PEM file of its private key.
    header
        NAME:VALUE that the caller sends; may be repeated.
    context
        KEY=VALUE of the route's context_extensions; may be repeated.
    http
        The request is plain HTTP, not gRPC.
    verb
        Its HTTP method, such as DELETE; with --http, and by default GET.
    insecure_channel
        Send the token to another machine without TLS.
    timeout
        Seconds to wait for the verdict.
    as_json
        Print one JSON object.

    """
    # As in `authz serve`.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc  # noqa: PLC0415 - other commands need not load it

    from authz.cli import verdict  # noqa: PLC0415 - as above
    from authz.envoy import client  # noqa: PLC0415 - as above

    address = addresses.parse("server", server)
    if not method.startswith("/") or not method.isprintable():
        raise ConfigError("method: give /package.Service/Method, or with --http a path that begins with /")
    if not verb.isprintable():
        raise ConfigError("verb: give an HTTP method, such as DELETE")
    if verb and not http:
        raise ConfigError("verb: give --http, too; gRPC is always POST")
    if token is not None and address.kind == "tcp" and not (address.is_local or insecure_channel):
        raise ConfigError("server: the token would be sent in plain text; use tls:HOST:PORT, or --insecure-channel")
    headers, secret = _headers(header or ()), _token(token)
    if token is not None:
        headers.append(("authorization", f"Bearer {secret}"))
    request = client.question(method, headers, _context(context or ()), is_http=http, verb=verb)
    files = client.ClientFiles(ca_file=ca_file, cert_file=cert_file, key_file=key_file)
    try:
        report = verdict.report_of(client.ask(address, files, request, timeout))
    except grpc.RpcError as error:
        report = verdict.unanswered(error.code().name, error.details() or "")
    if token is not None and report["reason"]:
        explanation = explain_reason(report["reason"], secret, time.time())
        report |= {} if explanation is None else explanation.as_data()
        report |= {"header": unverified(secret).header or {}}
    report = verdict.without(secret, report)
    if as_json:
        write(json.dumps(report))
    else:
        say(*verdict.lines_of(report))
    return _STATUSES[report["verdict"]]


def _token(source: str | None) -> str:
    try:
        return "" if source is None else secret_in(source, "token")
    except ConfigError:
        # Without the file's name, which may be the token itself.
        raise ConfigError("token: no such file; give the name of one, or - for standard input") from None


def _headers(given: Iterable[str]) -> list[tuple[str, str]]:
    headers = [header_of(text) for text in given]
    if "authorization" in dict(headers):
        raise ConfigError("header: give the token with --token, because arguments show in every list of processes")
    return headers


def _context(given: Iterable[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if not all(key and equals and (key + value).isprintable() for key, equals, value in pairs):
        raise ConfigError("context: give KEY=VALUE")
    return {key: value for key, _, value in pairs}
