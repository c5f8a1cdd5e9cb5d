"""Builds the policies of the settings. Apart from the authorizer, because a supervisor of workers needs only this."""

from authz.policy import Policy
from authz.policy.protos.access import access_of_file
from authz.policy.protos.descriptors import Descriptors
from authz.settings.settings import Settings


def descriptors_of(settings: Settings) -> Descriptors | None:
    """Read the descriptor set, if the settings name one.

    A caller that needs several of the functions below reads it once, and passes it to each.

    Raises:
        ConfigError: it cannot be read.

    """
    return None if settings.descriptors is None else Descriptors.of(settings.descriptors)


def policy_of(settings: Settings, descriptors: Descriptors | None = None) -> Policy | None:
    """Build the policy: of the file, of the descriptor set if its services declare who may call, or of both.

    Raises:
        ConfigError: a file cannot be read, or something in it is wrong.

    """
    return _policy(descriptors or descriptors_of(settings), settings.policy)


def shadow_of(settings: Settings, descriptors: Descriptors | None = None) -> Policy | None:
    """Build the policy on trial, if there is one, of its file, as :func:`policy_of` does.

    Raises:
        ConfigError: as for :func:`policy_of`.

    """
    if settings.shadow is None:
        return None
    return _policy(descriptors or descriptors_of(settings), settings.shadow)


def policy_in_force(settings: Settings, descriptors: Descriptors | None = None) -> str:
    """Return in words what says who may call what; empty if nothing does: every good token may call everything.

    Raises:
        ConfigError: the descriptor set cannot be read.

    """
    descriptors = descriptors or descriptors_of(settings)
    declared = [f"what {settings.descriptors} declares"] if _declares_access(descriptors) else []
    return " with ".join([settings.policy, *declared] if settings.policy is not None else declared)


def _policy(descriptors: Descriptors | None, file: str | None) -> Policy | None:
    if descriptors is not None and _declares_access(descriptors):
        return Policy.from_descriptors(descriptors, file)
    return None if file is None else Policy.from_file(file)


def _declares_access(descriptors: Descriptors | None) -> bool:
    # A descriptor set may be there for isolation only.
    return descriptors is not None and any(access_of_file(descriptors).values())
