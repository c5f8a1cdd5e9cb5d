"""How issuers write their access tokens: which claims name organization and application, and what marks a person's.

A person's token is signed by the same issuer's keys and may have the same audience, with an organization that the
person chose (RFC 8725 section 3.12). So each profile says what only an application's token has. Tokens without it are
refused, until their issuer is configured to write it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from authz.errors import ConfigError

ProfileName = Literal["workos", "auth0", "entra", "keycloak", "okta"]

CLIENT_ID = "{client_id}"
"""In :attr:`TokenProfile.application`, stands for the application that the token names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenProfile:
    """How one issuer writes its tokens; by default as WorkOS Connect does.

    Args:
        org_id: the claim that names the organization.
        client_id: the claim that names the application.
        is_client_id_optional: whether ``sub`` names the application where the claim ``client_id`` is missing.
        scopes: the claims that may hold the scopes, as a string or a list; the first one present counts.
        application: by claim, the value that it must have in an application's token.
        person: claims that only a person's token has.
        person_subjects: prefixes that only a person's ``sub`` has.

    Raises:
        ConfigError: the name of a claim is empty.

    """

    org_id: str = "org_id"
    client_id: str = "client_id"
    is_client_id_optional: bool = False
    # WorkOS's emulator writes scp, perhaps as a list; RFC 9068 section 2.2.3 says scope.
    scopes: tuple[str, ...] = ("scope", "scp")
    application: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"sub": CLIENT_ID}))
    person: Collection[str] = ("sid",)
    person_subjects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the names."""
        for setting, names in (
            ("org_id_claim", [self.org_id]),
            ("client_id_claim", [self.client_id]),
            ("token_profile", [*self.scopes, *self.application, *self.person]),
        ):
            if not all(names):
                raise ConfigError(f"{setting}: the name of a claim must not be empty")


PROFILES: Mapping[str, TokenProfile] = MappingProxyType(
    {
        "workos": TokenProfile(is_client_id_optional=True, person_subjects=("user_",)),
        "auth0": TokenProfile(
            client_id="azp", application={"sub": f"{CLIENT_ID}@clients", "gty": "client-credentials"}
        ),
        # Entra writes the optional claim idtyp only if the API's registration asks for it.
        "entra": TokenProfile(client_id="azp", scopes=("roles",), application={"idtyp": "app"}, person=("scp",)),
        # The service account's mappers write client_id; sub is the service account's own id.
        "keycloak": TokenProfile(application={"azp": CLIENT_ID}, person=("sid", "session_state")),
        "okta": TokenProfile(client_id="cid", scopes=("scp",), person=("uid",)),
    }
)
"""The profiles of issuers, by the name of a setting."""


def profile_of(profile: TokenProfile | str, **changes: Any) -> TokenProfile:
    """Return a profile, with other names of claims if given.

    Args:
        profile: a profile, or a name in :data:`PROFILES`.
        changes: fields of :class:`TokenProfile`; those that are ``None`` change nothing.

    Raises:
        ConfigError: there is no profile of that name, or a name of a claim is empty.

    """
    if isinstance(profile, str):
        if profile not in PROFILES:
            raise ConfigError(f"token_profile: {profile!a} is unknown; choose one of {', '.join(PROFILES)}")
        profile = PROFILES[profile]
    return replace(profile, **{name: value for name, value in changes.items() if value is not None})
