"""``authz token`` and ``authz verify``."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from authz.cli.app import ALLOWED, DENIED, UNDECIDED, app, say, secret_in, standard_input, write
from authz.errors import AuthzError, ConfigError, UnavailableError
from authz.issuer.explanation import explain, unverified
from authz.issuer.token_source import ClientCredentials, discovery_of
from authz.issuer.verifiers import verifier_of
from authz.settings import variables
from authz.settings.issuer import ConnectionSettings
from authz.settings.settings import VerifierSettings
from authz.settings.variables import AuthMethod

VerifierFlags = Annotated[VerifierSettings | None, Parameter(name="*")]
ConnectionFlags = Annotated[ConnectionSettings | None, Parameter(name="*")]


@app.command
def token(
    *,
    issuer: str | None = None,
    token_url: str | None = None,
    discover: bool | None = None,
    discover_hosts: list[str] | None = None,
    client_id: str,
    client_secret_file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    scope: list[str] | None = None,
    resource: list[str] | None = None,
    audience: str | None = None,
    auth_method: AuthMethod = "client_secret_post",
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    flags: ConnectionFlags = None,
) -> int:
    """Get an access token by client_credentials and print it.

    The secret is read from AUTHZ_CLIENT_SECRET or from a file, so that no list of processes shows it.

    Parameters
    ----------
    issuer
        The AuthKit domain, such as https://acme.authkit.app; or AUTHZ_ISSUER.
    token_url
        The token endpoint, instead of the issuer.
    discover
        Find the token endpoint in the issuer's metadata; or AUTHZ_DISCOVER.
    discover_hosts
        A host that the endpoint may then have, in addition to the issuer's own; may be repeated.
    client_id
        The M2M application.
    client_secret_file
        A file that holds the secret; - is standard input.
    scope
        A scope to ask for; may be repeated.
    resource
        The URI of the API that the token is for (RFC 8707); may be repeated.
    audience
        The API that the token is for, with issuers that use this parameter, such as Auth0.
    auth_method
        client_secret_post or client_secret_basic.
    as_json
        Print an object with the token and its claims, which are not verified.

    """
    connection = ConnectionSettings.load(flags)
    # If the endpoint is given, variables about the issuer are ignored: they may be meant for a server here.
    of_issuer = () if token_url is not None else ("issuer", "discover", "discover_hosts")
    found = variables.values(("client_secret", *of_issuer), connection.env_file)
    if discover is not None:
        found["discover"] = str(discover)
    if discover_hosts is not None:
        found["discover_hosts"] = ",".join(discover_hosts)
    source = ClientCredentials(
        found.get("issuer") if issuer is None else issuer,
        token_url=token_url,
        **discovery_of(found),
        client_id=client_id,
        client_secret=_secret(client_secret_file, found.get("client_secret", "")),
        scope=scope,
        resource=resource,
        audience=audience,
        auth_method=auth_method,
        transport=connection.transport(),
    )
    try:
        access_token = source.token()
    finally:
        source.close()
    if as_json:
        write(json.dumps({"access_token": access_token, "claims": unverified(access_token).claims}))
    else:
        write(access_token)
    return ALLOWED


@app.command
def verify(
    token: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",  # noqa: S107 - standard input
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    flags: VerifierFlags = None,
) -> int:
    """Verify one token, and print verdict and reason, what was found and expected, header and claims.

    The signature is never shown.

    Parameters
    ----------
    token
        The token; - is standard input.
    as_json
        Print one JSON object.

    """
    if token.startswith("--"):
        # A leading hyphen is allowed only for "-" itself.
        raise ConfigError(f"Unknown option: {token.partition('=')[0]}")
    verifier = verifier_of(VerifierSettings.load(flags))
    text = (standard_input() if token == "-" else token).strip()  # noqa: S105 - standard input
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
        explanation = explain(error, text, verifier)
        report |= {} if explanation is None else explanation.as_data()
    finally:
        verifier.close()
    report |= unverified(text)._asdict()
    if as_json:
        write(json.dumps(report))
    else:
        say(*_lines(report))
    return status


def _secret(file: Path | None, secret: str) -> str:
    if file is not None:
        secret = secret_in(file, "client_secret_file")
    if not secret:
        raise ConfigError("client_secret: missing; set AUTHZ_CLIENT_SECRET or --client-secret-file")
    return secret


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [report["verdict"] + (f": {report['reason']} ({report['message']})" if report["reason"] else "")]
    lines += [
        f"  {name}: {value if isinstance(value, str) else ' '.join(value)}"
        for name, value in report.items()
        if name in ("org_id", "client_id", "scopes", "found", "expected", "setting") and value != ""
    ]
    for part in ("claims", "header"):
        if report[part] is not None:
            lines.append(f"{part}:" if report["claims_verified"] else f"{part} (NOT verified):")
            lines += [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in report[part].items()]
    return lines
