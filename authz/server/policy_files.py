"""The files by which ``authz serve`` decides, policies and descriptor set: read at the start and at every change."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from authz.errors import ConfigError
from authz.http.isolation import RequestIsolation
from authz.judge.authorizer import Authorizer
from authz.judge.reload import Reloader, Source
from authz.policy import Policy
from authz.policy.configured import descriptors_of, policy_of, shadow_of
from authz.policy.protos.access import access_of_file
from authz.policy.protos.descriptors import Descriptors
from authz.runtime.watch import Files, Seen
from authz.server.workers.worker import Worker
from authz.settings.settings import Settings


class PolicyFiles(NamedTuple):
    """The files of the policy, and those of the policy on trial; ``None`` where there is no such policy."""

    policy: Files | None
    shadow: Files | None

    def follow(self, noted: Sequence[Seen]) -> None:
        """Follow as well what was read because one of the files names it (:func:`authz.runtime.watch.noting`)."""
        for files in self:
            if files is not None:
                files.follow(noted)


def files(settings: Settings) -> PolicyFiles:
    """Return the files as they are now. Call it before they are read, so that every later change counts."""
    return PolicyFiles(
        _files(settings.policy, settings.descriptors),
        # The descriptor set belongs to the policy on trial, but is none by itself.
        _files(settings.shadow, settings.descriptors) if settings.shadow is not None else None,
    )


def isolation(settings: Settings, descriptors: Descriptors | None = None) -> RequestIsolation | None:
    """Build what checks whose data requests are about, if there is a descriptor set.

    Raises:
        ConfigError: the settings contradict one another, or the descriptor set cannot be used.

    """
    descriptors = descriptors or descriptors_of(settings)
    if descriptors is not None:
        found = RequestIsolation(descriptors, settings.isolation)
        if found.is_idle and not any(access_of_file(descriptors).values()):
            # More likely the options were lost on the way than that the operator wants none.
            raise ConfigError(
                f"descriptors: {settings.descriptors!a} says neither who may call (authz.v1.access) nor whose data "
                "requests are about (authz.v1.organization), so it does nothing; make it with all options"
            )
        return found
    if settings.isolation == "enforce":
        raise ConfigError("isolation: enforce needs AUTHZ_DESCRIPTORS or --descriptors, which say what to check")
    return None


def reloader(settings: Settings, found: PolicyFiles, authorizer: Authorizer, worker: Worker | None) -> Reloader | None:
    """Return what reloads the policies of an authorizer when their files change; a supervisor is told of failures.

    Args:
        settings: the settings.
        found: the files as they were before the authorizer was made of them.
        authorizer: the authorizer.
        worker: which of several workers this process is.

    Raises:
        ConfigError: an extra is not installed.

    """

    def load_policy() -> tuple[Policy | None, Callable[[], object]]:
        descriptors = descriptors_of(settings)
        policy, checks = policy_of(settings, descriptors), isolation(settings, descriptors)
        _check_options(authorizer, policy, checks)
        return policy, partial(authorizer.replace_policy, policy, isolation=checks)

    def load_shadow() -> tuple[Policy | None, Callable[[], object]]:
        shadow = shadow_of(settings)
        return shadow, partial(authorizer.replace_shadow, shadow)

    def tell() -> None:
        if worker is not None:
            worker.say(stale=reloading.is_failing)

    sources = []
    if found.policy is not None:
        sources.append(Source("policy", found.policy, load_policy))
    if found.shadow is not None:
        sources.append(Source("shadow", found.shadow, load_shadow))
    if not sources:
        return None
    reloading = Reloader(sources, changed=tell, clock=authorizer.verifier.clock)
    return reloading


def _check_options(authorizer: Authorizer, policy: Policy | None, checks: RequestIsolation | None) -> None:
    """Check that the descriptor set still has options: one that was made without them would open every method.

    Raises:
        ConfigError: it had options of some kind before, and has none of that kind now.

    """
    before, checked, _public = authorizer.in_force.now
    if before is not None and before.has_protos and (policy is None or not policy.has_protos):
        lost = "no method declares who may call it"
    elif checked is not None and not checked.is_idle and (checks is None or checks.is_idle):
        lost = "no field is marked (authz.v1.organization)"
    else:
        return
    raise ConfigError(f"descriptors: {lost} any more; make it with all options, or start again if that is meant")


def _files(*paths: str | None) -> Files | None:
    named = [path for path in paths if path is not None]
    return Files(named) if named else None
