"""What is set of one issuer: which of its tokens are good, and how it is asked about them."""

from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, SecretStr

from authz.call.words import ORG_ID_PATTERN
from authz.errors import ConfigError
from authz.runtime.configuration import read_secret
from authz.runtime.network.transport import MAX_BYTES, Transport
from authz.runtime.network.urls import check_url
from authz.settings.environment import EnvironmentSettings, flag
from authz.settings.variables import PREFIX, AuthMethod
from authz.token.profiles import ProfileName, profile_of

T = TypeVar("T")


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Strings = Annotated[list[str], BeforeValidator(_split)]


class FileSettings(EnvironmentSettings):
    """The files that settings are read from."""

    config: str | None = Field(
        None,
        description="A file of settings by their names (YAML, TOML or JSON by its suffix), for what neither flags nor "
        "variables say. None is read unless it is named here.",
    )
    env_file: str | None = Field(
        None, description="A file of such variables, in lines AUTHZ_NAME=VALUE. None is read unless it is named here."
    )


class ConnectionSettings(FileSettings):
    """What decides how other servers are asked."""

    ca_file: str | None = Field(None, description="PEM file of the authorities to trust for https.")
    proxy_from_env: bool = Field(
        default=False,
        description="Send https requests through the proxy that HTTPS_PROXY or ALL_PROXY names, but for hosts of "
        "NO_PROXY.",
    )

    def transport(self, *, max_bytes: int = MAX_BYTES) -> Transport:
        """Build what asks them.

        Args:
            max_bytes: the largest body that is read.

        Raises:
            ConfigError: ``ca_file`` cannot be read.

        """
        return Transport(max_bytes=max_bytes, ca_file=self.ca_file, trust_env=self.proxy_from_env)


class IssuerSettings(ConnectionSettings):
    """What decides which tokens of an issuer are good."""

    issuer: str | None = Field(
        None, description="The exact iss of good tokens, such as https://acme.authkit.app. Required."
    )
    audience: Strings | None = Field(
        None, description="The exact aud, for WorkOS the environment's client ID. Required."
    )
    discover: bool = Field(
        default=False,
        description="Look up where the issuer has its keys, and answers questions about tokens, in its metadata "
        "(RFC 8414).",
    )
    discover_hosts: Strings | None = Field(
        None, description="Hosts that the metadata may name besides the issuer's own; may be given several times."
    )
    jwks_url: str | None = Field(None, description="Where the keys are, if not at {issuer}/oauth2/jwks.")
    jwks: str | None = Field(None, description="Keys that never change instead: a path, or the JSON of a JWK Set.")
    jwks_seed: str | None = Field(
        None, description="Keys to begin with, in the same forms, while the issuer cannot be asked."
    )
    algorithms: Strings = Field(["RS256"], description="Signature algorithms to allow.")
    leeway: float = Field(10.0, description="Seconds by which clocks may differ, at most 300.")
    max_lifetime: float | None = Field(None, description="Seconds that a token may live at the most.")
    allow_user_tokens: bool = Field(default=False, description="Accept tokens that stand for a person, too.")
    allow_missing_kid: bool = Field(
        default=False, description="Accept a token without kid where there is only one key."
    )
    require_at_jwt: bool = Field(
        default=False, description="Refuse tokens whose typ is not at+jwt. WorkOS sends no typ."
    )
    org_id_pattern: str = Field(ORG_ID_PATTERN, description="What the whole of org_id must match.")
    token_profile: ProfileName = Field(
        "workos", description="How the issuer writes its tokens, and what tells an application's from a person's."
    )
    org_id_claim: str | None = Field(None, description="The claim that names the organization, if not org_id.")
    client_id_claim: str | None = Field(
        None, description="The claim that names the application, if not that of token_profile."
    )

    def verifier_options(self) -> dict[str, Any]:
        """Return the arguments of this issuer's :class:`authz.Verifier`.

        Raises:
            ConfigError: a setting is missing or cannot work.

        """
        return {
            "issuer": needed("issuer", self.issuer, "https://acme.authkit.app"),
            "audience": needed("audience", self.audience, "client_01…"),
            "discover": self.discover,
            "discover_hosts": self.discover_hosts or (),
            "jwks_url": self.jwks_url,
            "jwks": self.jwks,
            "jwks_seed": self.jwks_seed,
            "algorithms": self.algorithms,
            "leeway": self.leeway,
            "max_lifetime": self.max_lifetime,
            "allow_user_tokens": self.allow_user_tokens,
            "allow_missing_kid": self.allow_missing_kid,
            "require_at_jwt": self.require_at_jwt,
            "org_id_pattern": self.org_id_pattern,
            "profile": profile_of(self.token_profile, org_id=self.org_id_claim, client_id=self.client_id_claim),
            "transport": self.transport(),
        }


class IntrospectionSettings(IssuerSettings):
    """What is needed besides to ask an issuer about its tokens."""

    introspection_client_id: str | None = Field(None, description="Our own credentials, for asking the issuer.")
    introspection_client_secret: SecretStr | None = None
    introspection_client_secret_file: str | None = Field(
        None, description="A file that holds their secret, if not AUTHZ_INTROSPECTION_CLIENT_SECRET."
    )
    introspection_auth_method: AuthMethod = Field(
        "client_secret_post", description="How they are shown: client_secret_post or client_secret_basic."
    )
    introspection_url: str | None = Field(
        None, description="Where the issuer is asked, if not at {issuer}/oauth2/introspection."
    )

    def introspector_options(self) -> dict[str, Any]:
        """Return the arguments of this issuer's :class:`authz.Introspector`.

        Raises:
            ConfigError: a setting is missing or cannot work.

        """
        url, file = self.introspection_url, self.introspection_client_secret_file
        return {
            "issuer": self.issuer if url is None else None,
            "endpoint": None if url is None else check_url(url, "introspection_url"),
            "discover": self.discover and url is None,
            "discover_hosts": (self.discover_hosts or ()) if url is None else (),
            "client_id": needed(
                "introspection_client_id", self.introspection_client_id, "client_01…, since the issuer is to be asked"
            ),
            "client_secret": needed_secret("introspection_client_secret", self.introspection_client_secret, file),
            "auth_method": self.introspection_auth_method,
            "transport": self.transport(),
        }


def needed_secret(name: str, given: SecretStr | None, file: str | None) -> str:
    """Return a secret; see :func:`secret_of`.

    Raises:
        ConfigError: there is none.

    """
    secret = secret_of(name, given, file)
    if not secret:
        raise ConfigError(f"{name}: missing; set {PREFIX}{name.upper()} or --{flag(name)}-file")
    return secret


def secret_of(name: str, given: SecretStr | None, file: str | None) -> str:
    """Return a secret that was given, or the one that a file holds; empty if there is neither.

    Raises:
        ConfigError: the file cannot be read.

    """
    if file is not None:
        return read_secret(file, f"{name}_file")
    return given.get_secret_value() if given is not None else ""


def needed(name: str, value: T | None, example: str) -> T:
    """Return the value of a setting.

    Raises:
        ConfigError: there is none; the message shows an example.

    """
    if not value:
        raise ConfigError(f"{name}: missing; set {PREFIX}{name.upper()} or --{flag(name)}, such as {example}")
    return value
