"""The command ``authz``.

Exit codes: 0 allowed or done, 1 denied, 2 usage or configuration, 3 cannot decide.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import cyclopts
from cyclopts import Parameter
from pydantic import ValidationError

from authz import logs, telemetry
from authz.encoding import EncodingError, base64url_decode, json_object
from authz.errors import AuthzError, ConfigError, TokenEndpointError, UnavailableError
from authz.metadata import TrustedMetadata
from authz.secret import read_secret
from authz.settings import Settings, VerifierSettings, config_error
from authz.token_source import AuthMethod, ClientCredentials
from authz.transport import Transport

ALLOWED, DENIED, MISUSED, UNDECIDED = 0, 1, 2, 3

app = cyclopts.App(
    name="authz",
    help="Verified organizations for gRPC: WorkOS Connect M2M tokens, in process and behind Envoy.",
    version=lambda: version("grpc-org-authz"),
    version_flags="--version",
    help_on_error=False,
    default_parameter=Parameter(negative_iterable=()),
)

ServeFlags = Annotated[Settings | None, Parameter(name="*")]
VerifierFlags = Annotated[VerifierSettings | None, Parameter(name="*")]


@app.command
def serve(*, flags: ServeFlags = None) -> int:
    """Run the external authorization server for Envoy (ext_authz v3).

    Every option may also be given as a variable, such as AUTHZ_JWKS_URL for --jwks-url, or in .env.
    """
    # The core of gRPC logs in a format of its own what comes back as an error anyway.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from authz.envoy import server  # noqa: PLC0415 - grpc, which the other commands need not load

    settings = Settings.load(flags)
    logs.configure(settings.log_level, settings.log_format)
    serving = server.serve(
        settings.authorizer(),
        settings.listen,
        engine=settings.engine,
        remove_authorization=settings.remove_authorization,
        grace=settings.grace,
        started=lambda addresses: telemetry.event(
            telemetry.INFO, "listening", addresses=list(addresses), issuer=settings.issuer, audience=settings.audience
        ),
    )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serving)
    return ALLOWED


@app.command
def issuer(
    *,
    listen: str = "127.0.0.1:9190",
    issuer_url: str | None = None,
    config: Path | None = None,
    keys: Path | None = None,
    allow_remote: bool = False,
) -> int:
    """Run a local WorkOS Connect for development. Never use it in production.

    Parameters
    ----------
    listen
        HOST:PORT; port 0 takes a free one.
    issuer_url
        The issuer that tokens name, where it differs from the address.
    config
        YAML file of organizations and applications; there is a built-in one.
    keys
        File of private keys, kept from run to run; made if it is not there.
    allow_remote
        Permit an address that other machines can reach.

    """
    with _extra("demo"):
        from authz.demo.issuer import serve_issuer  # noqa: PLC0415 - the extra's
    serve_issuer(listen=listen, issuer_url=issuer_url, config=config, keys=keys, allow_remote=allow_remote)
    return ALLOWED


@app.command
def demo(*, keep: bool = False) -> int:
    """Show the main job: two organizations, a real Envoy, and everything that must not get through.

    Parameters
    ----------
    keep
        Leave everything running, and print commands to play with.

    """
    with _extra("demo"):
        from authz.demo import demo as show  # noqa: PLC0415 - the extra's
    return show.run(keep=keep)


@app.command
def token(
    *,
    issuer: str | None = None,
    token_url: str | None = None,
    client_id: str,
    client_secret_file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    scope: list[str] | None = None,
    auth_method: AuthMethod = "client_secret_post",
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Get an access token by client_credentials and print it.

    The secret is read from AUTHZ_CLIENT_SECRET or from a file, so that it shows in no list of processes.

    Parameters
    ----------
    issuer
        The AuthKit domain, such as https://acme.authkit.app; or AUTHZ_ISSUER.
    token_url
        The token endpoint itself, instead.
    client_id
        The M2M application.
    client_secret_file
        A file that holds the secret; - is standard input.
    scope
        A scope to ask for; may be repeated.
    auth_method
        client_secret_post or client_secret_basic.
    as_json
        Print an object with the token and its claims, which are not verified.

    """
    if issuer is None and token_url is None:
        issuer = os.environ.get("AUTHZ_ISSUER")
    source = ClientCredentials(
        issuer,
        token_url=token_url,
        client_id=client_id,
        client_secret=_secret(client_secret_file),
        scope=scope,
        auth_method=auth_method,
        transport=Transport(),
    )
    try:
        access_token = source.token()
    finally:
        source.close()
    print(json.dumps({"access_token": access_token, "claims": _claims(access_token)}) if as_json else access_token)
    return ALLOWED


@app.command
def verify(
    token: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",  # noqa: S107 - standard input
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    flags: VerifierFlags = None,
) -> int:
    """Verify one token and say the verdict, the reason and the claims; never the signature.

    Parameters
    ----------
    token
        The token; - is standard input.
    as_json
        Print one JSON object.

    """
    if token.startswith("--"):
        # A leading hyphen is allowed for the sake of "-" alone.
        raise ConfigError(f"Unknown option: {token.partition('=')[0]}")
    verifier = VerifierSettings.load(flags).verifier()
    text = (_standard_input() if token == "-" else token).strip()  # noqa: S105 - standard input
    report: dict[str, Any] = {"verdict": "allowed", "reason": "", "claims_verified": True}
    status = ALLOWED
    try:
        principal = verifier.verify(text)
        report |= {"org_id": principal.org_id, "client_id": principal.client_id, "scopes": sorted(principal.scopes)}
    except AuthzError as error:
        undecided = isinstance(error, UnavailableError)
        status = UNDECIDED if undecided else DENIED
        report |= {"verdict": "undecided" if undecided else "denied", "reason": error.reason, "message": str(error)}
        report["claims_verified"] = False
    finally:
        verifier.close()
    report["claims"] = _claims(text)
    print(json.dumps(report) if as_json else _text(report))
    return status


@app.command
def envoy_config(
    *,
    upstream: str,
    http_upstream: str | None = None,
    listen: str = "127.0.0.1:10000",
    authz: str = "127.0.0.1:9191",
    admin: str | None = None,
) -> int:
    """Print a complete Envoy bootstrap, as JSON, that asks `authz serve` about every request.

    Parameters
    ----------
    upstream
        HOST:PORT or unix:PATH of the gRPC backend.
    http_upstream
        The same of a plain HTTP backend; without one Envoy answers 404 to what is not gRPC.
    listen
        Where Envoy listens.
    authz
        Where `authz serve` listens.
    admin
        HOST:PORT of Envoy's administration interface; none by default.

    """
    from authz.envoy import config  # noqa: PLC0415 - only this command needs it

    addresses = {"upstream": upstream, "http_upstream": http_upstream, "listen": listen, "authz": authz, "admin": admin}
    for name, address in addresses.items():
        if address is not None:
            config.check_address(name, address)
    routes = [config.grpc_route("upstream")]
    clusters = [config.cluster("authz", [authz], http2=True), config.cluster("upstream", [upstream], http2=True)]
    if http_upstream is not None:
        routes.append(config.http_route("http_upstream"))
        clusters.append(config.cluster("http_upstream", [http_upstream], http2=False))
    listener = config.listener("ingress", listen, routes, authz="authz", trusted=TrustedMetadata())
    print(json.dumps(config.bootstrap([listener], clusters, admin=admin), indent=2))
    return ALLOWED


@app.command
def protos() -> int:
    """Print the folder of the .proto files, for protoc -I and buf."""
    here = Path(__file__).parent
    # In a wheel they lie inside the package, in a checkout beside it.
    print(next(folder for folder in (here / "protos", here.parent / "protos") if folder.is_dir()))
    return ALLOWED


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; what is wrong is said in one line on standard error."""
    try:
        status = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        return _complain(_usage(error), MISUSED)
    except ConfigError as error:
        return _complain(error, MISUSED)
    except UnavailableError as error:
        refused = isinstance(error, TokenEndpointError) and error.is_permanent
        return _complain(error, DENIED if refused else UNDECIDED)
    except KeyboardInterrupt:
        return 128 + 2
    return status if isinstance(status, int) else ALLOWED


def _complain(error: object, status: int) -> int:
    print(f"authz: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def _usage(error: cyclopts.CycloptsError) -> object:
    # These two would repeat the words, and one of them may be a token.
    if isinstance(error, cyclopts.UnknownCommandError):
        return f"no such command; there are {', '.join(name for name in app if not name.startswith('-'))}"
    if isinstance(error, cyclopts.UnusedCliTokensError):
        return f"words too many: {len(error.unused_tokens or ())}; options begin with --, see --help"
    cause = error.__cause__ or error.__context__
    return config_error(cause) if isinstance(cause, ValidationError) else error


@contextlib.contextmanager
def _extra(name: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"this command needs the extra {name!r}: pip install 'grpc-org-authz[{name}]'") from error


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415 - not there on Windows
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _standard_input() -> str:
    # Bytes, for the locale must not decide what is read; whatever is no text is no token either.
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def _secret(file: Path | None) -> str:
    if file is None:
        secret = os.environ.get("AUTHZ_CLIENT_SECRET", "")
    elif str(file) == "-":
        secret = _standard_input().strip()
    else:
        secret = read_secret(file, "client_secret_file")
    if not secret:
        raise ConfigError("client_secret: missing; set AUTHZ_CLIENT_SECRET or --client-secret-file")
    return secret


def _claims(token: str) -> dict[str, Any] | None:
    parts = token.split(".")
    try:
        return json_object(base64url_decode(parts[1]))
    except (EncodingError, IndexError):
        return None


def _text(report: dict[str, Any]) -> str:
    lines = [report["verdict"] + (f": {report['reason']} ({report['message']})" if report["reason"] else "")]
    lines += [
        f"  {name}: {value if isinstance(value, str) else ' '.join(value)}"
        for name, value in report.items()
        if name in ("org_id", "client_id", "scopes")
    ]
    if report["claims"] is not None:
        lines.append("claims:" if report["claims_verified"] else "claims (NOT verified):")
        lines += [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in report["claims"].items()]
    return "\n".join(lines)
