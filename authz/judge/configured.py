"""Builds the authorizer and what it asks of the settings.

Settings are plain values; what is built of them is built here, and in :func:`authz.issuer.verifiers.verifier_of`.
"""

from collections.abc import Collection, Mapping

from authz.call.requirements import Assurance
from authz.decisions.decision import Observer
from authz.errors import ConfigError
from authz.issuer.introspection import Introspector
from authz.issuer.verifiers import verifier_of
from authz.judge.authorizer import Authorizer
from authz.organizations.directory import Directory
from authz.organizations.workos import WorkOSDirectory
from authz.policy.configured import descriptors_of, policy_of, shadow_of
from authz.policy.protos.descriptors import Descriptors
from authz.settings.issuer import needed_secret
from authz.settings.issuers import Issuers, ListedIssuer
from authz.settings.memory import token_memory_of
from authz.settings.settings import Settings


def authorizer_of(
    settings: Settings, observers: Collection[Observer] = (), descriptors: Descriptors | None = None
) -> Authorizer:
    """Build the authorizer.

    Args:
        settings: the settings.
        observers: are told of every decision.
        descriptors: the descriptor set, if it has been read already.

    Raises:
        ConfigError: a setting is missing or cannot work.

    """
    if settings.jwt_authn_payload and settings.require_at_jwt:
        raise ConfigError("jwt_authn_payload: a payload has no typ, so this does not go with require_at_jwt")
    if settings.jwt_authn_payload and settings.introspect_max_age is not None:
        raise ConfigError("jwt_authn_payload: the issuer is asked about tokens, so not with introspect_max_age")
    listed = settings.listed()
    verifier = verifier_of(settings, listed, token_memory_of(settings.token_memory, settings.workers))
    descriptors = descriptors or descriptors_of(settings)
    policy, shadow = policy_of(settings, descriptors), shadow_of(settings, descriptors)
    assurance: Assurance | None = None
    if settings.introspect_max_age is not None:
        assurance = Assurance(max_age=settings.introspect_max_age, if_unavailable=settings.introspect_if_unavailable)
    is_asked = assurance is not None or any(each is not None and each.has_assurances for each in (policy, shadow))
    return Authorizer(
        verifier,
        public_methods=settings.public_methods,
        introspector=_introspector(settings, listed) if is_asked else None,
        assurance=assurance,
        policy=policy,
        shadow=shadow,
        directory=_directory(settings, listed),
        unknown_organizations=settings.unknown_organizations,
        realm=settings.realm,
        resource_metadata=settings.resource_metadata,
        observers=observers,
    )


def _introspector(settings: Settings, listed: Issuers | None) -> Introspector | Mapping[str, Introspector]:
    if listed is None:
        return Introspector(**settings.introspector_options())
    return dict(listed.made(_listed_introspector))


def _listed_introspector(each: ListedIssuer) -> tuple[str, Introspector]:
    for name in ("introspection_client_id", "introspection_client_secret_file"):
        if not getattr(each, name):
            raise ConfigError(f"{name}: missing; each issuer is to be asked about its tokens")
    return each.name, Introspector(**each.introspector_options())


def _directory(settings: Settings, listed: Issuers | None) -> Directory | Mapping[str, Directory] | None:
    if settings.workos_applications and not settings.workos_events:
        raise ConfigError("workos_applications: needs workos_events; the replica that follows them lists applications")
    if settings.workos_api_key is None and settings.workos_api_key_file is None:
        if settings.workos_groups_key or settings.workos_base_url is not None or settings.workos_events:
            raise ConfigError(
                "workos_api_key: missing; set AUTHZ_WORKOS_API_KEY or --workos-api-key-file to ask WorkOS"
            )
        return None
    directory = WorkOSDirectory(
        api_key=needed_secret("workos_api_key", settings.workos_api_key, settings.workos_api_key_file),
        base_url=settings.workos_base_url,
        groups_key=settings.workos_groups_key,
        transport=settings.transport(),
    )
    issuer = workos_issuer(listed)
    return {issuer: directory} if issuer else directory


def workos_issuer(listed: Issuers | None) -> str:
    """Return the issuer whose organizations WorkOS knows; empty if it knows those of every issuer.

    Raises:
        ConfigError: it cannot be told.

    """
    if listed is None or listed.are_organizations_shared or len(listed.listed) == 1:
        return ""
    issuers = listed.of_profile("workos")
    if len(issuers) != 1:
        raise ConfigError(
            "workos_api_key: WorkOS is asked about the organizations of one issuer, which is the one whose "
            f"token_profile is workos; the file of issuers has {len(issuers)} of them"
        )
    return issuers[0]
