"""``authz token``."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from authz.cli.app import ALLOWED, secret_in, write
from authz.cli.flags import flags_of
from authz.errors import ConfigError
from authz.issuer.token_source import ClientCredentials, discovery_of
from authz.settings import variables
from authz.settings.issuer import ConnectionSettings
from authz.settings.variables import AuthMethod

ConnectionFlags = Annotated[ConnectionSettings | None, flags_of(ConnectionSettings)]


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
        from authz.issuer.explanation import unverified  # noqa: PLC0415 - late: it loads what verifies tokens

        write(json.dumps({"access_token": access_token, "claims": unverified(access_token).claims}))
    else:
        write(access_token)
    return ALLOWED


def _secret(file: Path | None, secret: str) -> str:
    if file is not None:
        secret = secret_in(file, "client_secret_file")
    if not secret:
        raise ConfigError("client_secret: missing; set AUTHZ_CLIENT_SECRET or --client-secret-file")
    return secret
