"""``authz token``."""

import json
from argparse import BooleanOptionalAction, Namespace
from collections.abc import Mapping, Sequence
from typing import get_args

from authz.cli.app import ALLOWED, secret_in, write
from authz.cli.plain.parser import Parser
from authz.errors import ConfigError
from authz.settings import variables
from authz.settings.variables import AuthMethod

_CONNECTION = ("ca_file", "proxy_from_env")
_OF_ISSUER = ("issuer", "discover", "discover_hosts")
_OF_CLIENT = ("client_id", "client_secret_file", "token_url")


def parser() -> Parser:
    """Return the options of the command."""
    parser = Parser(
        "token",
        "Get an access token by client_credentials and print it.\n\n"
        "The secret is read from AUTHZ_CLIENT_SECRET or from a file, so that no list of processes shows it.\n"
        "A flag overrides its variable, and --issuer also AUTHZ_TOKEN_URL.",
    )
    _add_who(parser)
    _add_what(parser)
    return parser


def _add_who(parser: Parser) -> None:
    parser.option("client-id", "The M2M application; or AUTHZ_CLIENT_ID.")
    parser.option(
        "client-secret-file",
        "A file that holds the secret; - is standard input; or AUTHZ_CLIENT_SECRET_FILE.",
        metavar="FILE",
    )
    parser.option("issuer", "The AuthKit domain, such as https://acme.authkit.app; or AUTHZ_ISSUER.")
    parser.option("token-url", "The token endpoint, instead of the issuer; or AUTHZ_TOKEN_URL.")
    parser.option(
        "discover",
        "Find the token endpoint in the issuer's metadata; or AUTHZ_DISCOVER.",
        action=BooleanOptionalAction,
    )
    parser.option(
        "discover-hosts",
        "A host that the endpoint may then have, in addition to the issuer's own; may be repeated.",
        action="append",
        metavar="HOST",
    )


def _add_what(parser: Parser) -> None:
    parser.option("scope", "A scope to ask for; may be repeated; or AUTHZ_SCOPE.", action="append")
    parser.option(
        "resource",
        "The URI of the API that the token is for (RFC 8707); may be repeated; or AUTHZ_TOKEN_RESOURCE.",
        action="append",
    )
    parser.option(
        "audience",
        "The API that the token is for, with issuers that use this parameter, such as Auth0; or AUTHZ_TOKEN_AUDIENCE.",
    )
    parser.option("auth-method", "How the secret is shown.", choices=get_args(AuthMethod), default="client_secret_post")
    parser.option("json", "Print an object with the token and its claims, which are not verified.", action="store_true")
    parser.option("ca-file", "PEM file of the authorities to trust for https; or AUTHZ_CA_FILE.", metavar="FILE")
    parser.option(
        "proxy-from-env",
        "Send https requests through the proxy that HTTPS_PROXY or ALL_PROXY names; or AUTHZ_PROXY_FROM_ENV.",
        action=BooleanOptionalAction,
    )
    parser.option("env-file", "A file of variables, in lines AUTHZ_NAME=VALUE; or AUTHZ_ENV_FILE.", metavar="FILE")


def run(arguments: Sequence[str]) -> int:
    """Run the command, and return its exit code."""
    given = parser().read(arguments)
    if given is None:
        return ALLOWED
    access_token = _token(given)
    if given.json:
        from authz.issuer.explanation import unverified  # noqa: PLC0415 - late: it loads what verifies tokens

        write(json.dumps({"access_token": access_token, "claims": unverified(access_token).claims}))
    else:
        write(access_token)
    return ALLOWED


def _token(given: Namespace) -> str:
    from authz.issuer.token_source import ClientCredentials, discovery_of  # noqa: PLC0415 - late: --help does without
    from authz.runtime.network.transport import Transport  # noqa: PLC0415 - as above

    found = _found(given)
    source = ClientCredentials(
        found.get("issuer"),
        token_url=found.get("token_url"),
        **discovery_of(found),
        client_id=found["client_id"],
        client_secret=_secret(found),
        scope=given.scope or found.get("scope"),
        resource=given.resource or found.get("token_resource", "").split() or None,
        audience=given.audience or found.get("token_audience"),
        auth_method=given.auth_method,
        transport=Transport(
            ca_file=found.get("ca_file"),
            trust_env=variables.boolean("proxy_from_env", found.get("proxy_from_env", "false")),
        ),
    )
    try:
        return source.token()
    finally:
        source.close()


def _found(given: Namespace) -> Mapping[str, str]:
    """Return the settings in force, as variables have them."""
    found = variables.values((*_CONNECTION, *_OF_ISSUER, *variables.CLIENT), given.env_file)
    flags = {name: getattr(given, name) for name in (*_CONNECTION, *_OF_ISSUER, *_OF_CLIENT)}
    texts = {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in flags.items()}
    told = {name: text for name, text in texts.items() if flags[name] is not None}
    # Who names the issuer on the command line does not mean the endpoint of another one.
    outdone = {"token_url"} if "issuer" in told else set()
    if "token_url" in {**found, **told}.keys() - outdone:
        # Variables about the issuer may be meant for a server here.
        outdone = set(_OF_ISSUER)
    return _complete({**{name: value for name, value in found.items() if name not in outdone}, **told})


def _complete(found: Mapping[str, str]) -> Mapping[str, str]:
    if "client_id" not in found:
        raise ConfigError("client_id: missing; set AUTHZ_CLIENT_ID or --client-id")
    if not {"issuer", "token_url"} & found.keys():
        raise ConfigError(
            "issuer: missing; set AUTHZ_ISSUER or --issuer, such as https://acme.authkit.app, or --token-url"
        )
    return found


def _secret(found: Mapping[str, str]) -> str:
    file = found.get("client_secret_file")
    secret = found.get("client_secret", "") if file is None else secret_in(file, "client_secret_file")
    if not secret:
        raise ConfigError("client_secret: missing; set AUTHZ_CLIENT_SECRET or --client-secret-file")
    return secret
