"""The policy: whether it loads, and whether any caller can be allowed anything by it."""

import re
from collections.abc import Iterator

from authz.cli.doctor.findings import Finding, fault, ok, skipped
from authz.cli.doctor.subject import Subject
from authz.errors import ConfigError
from authz.organizations.organization import Organization
from authz.policy import Policy
from authz.policy.configured import descriptors_of, policy_of
from authz.policy.explain.explanation import impossible_paths, shown
from authz.policy.index import Index
from authz.policy.rules import Rule
from authz.settings.settings import Settings

_MOST_TOLD = 5


def check_policy(subject: Subject) -> Iterator[Finding]:
    """Load the policy, and look for rules that can match no call."""
    try:
        policy = policy_of(subject.settings, descriptors_of(subject.settings))
    except ConfigError as error:
        yield subject.wrong("policy-invalid", error)
        return
    if policy is None:
        yield from _without_policy(subject.settings)
        return
    allowing = [rule for rule in (*policy.rules, *policy.requirements.values()) if not rule.is_deny]
    denies = Index([rule for rule in policy.rules if rule.is_deny])
    pointless = {rule.name: why for rule in allowing if (why := _why_never(rule, policy, denies, subject))}
    everyone = _why_none_at_all(policy, subject.settings)
    told = "; ".join(f"rule {shown(name)}: {why}" for name, why in list(pointless.items())[:_MOST_TOLD])
    if everyone or len(pointless) == len(allowing):
        found = f"{policy.name}: {everyone or told or 'it has no allow rule'}"
        yield fault("policy-allows-no-caller", found, "a rule that allows a caller")
        return
    for name, why in pointless.items():
        yield fault("policy-rule-never-matches", f"{policy.name}: rule {shown(name)}: {why}")
    usable = len(allowing) - len(pointless)
    yield ok(f"{policy.name}: {usable} {'rule' if usable == 1 else 'rules'} can allow a caller")


def _without_policy(settings: Settings) -> Iterator[Finding]:
    if settings.unknown_organizations == "deny" and not _asks_workos(settings):
        found = "unknown_organizations is deny, and neither a policy nor WorkOS says which are known"
        yield fault("policy-allows-no-caller", found, "a policy that lists organizations")
    elif settings.issuer is None and settings.issuers is None:
        yield skipped("no policy is set")
    else:
        yield fault("policy-none", "every good token may call everything", "a policy")


def _why_none_at_all(policy: Policy, settings: Settings) -> str:
    """Return why no organization is let in, whatever the rules say; empty if one may be."""
    if settings.unknown_organizations == "allow" or _asks_workos(settings):
        return ""
    if not policy.organizations:
        return "unknown_organizations is deny, and it lists no organization"
    is_suspended = all(each.is_suspended for each in policy.organizations.values())
    return "unknown_organizations is deny, and all that it lists are suspended" if is_suspended else ""


def _asks_workos(settings: Settings) -> bool:
    return settings.workos_api_key is not None or settings.workos_api_key_file is not None


def _why_never(rule: Rule, policy: Policy, denies: Index, subject: Subject) -> str:
    """Return why ``rule`` can allow no call; empty if it may allow one."""
    denying = denies.covering(rule)
    if denying is not None:
        return f"the deny rule {shown(denying.name)} matches all that it does"
    if rule.paths is not None and _are_all_impossible(rule):
        return f"no method is called {', '.join(map(shown, impossible_paths(rule)))}: methods begin with /"
    if rule.organizations is not None:
        why = _why_no_organization(rule.organizations, policy, subject)
        if why:
            return why
    if rule.groups is not None and not _asks_workos(subject.settings):
        members = [each for each in policy.organizations.values() if each.groups & rule.groups]
        if not any(map(_may_call, members)):
            return f"no organization that may call is in {' or '.join(map(shown, sorted(rule.groups)))}"
    return ""


def _are_all_impossible(rule: Rule) -> bool:
    paths = rule.paths
    if paths is None or paths.any_text:
        return False
    count = len(paths.exact) + len(paths.prefixes) + len(paths.suffixes)
    return count == len(impossible_paths(rule))


def _why_no_organization(named: frozenset[str], policy: Policy, subject: Subject) -> str:
    patterns = [each.settings.org_id_pattern for each in subject.issuers]
    possible = [name for name in named if not patterns or any(_matches(each, name) for each in patterns)]
    if not possible:
        return (
            f"no token names {', '.join(map(shown, sorted(named)[:_MOST_TOLD]))}: org_id_pattern matches none of them"
        )
    if not any(_may_call(policy.organization(name)) for name in possible):
        return "all organizations that it names are suspended"
    return ""


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name, re.ASCII) is not None
    except re.error:
        # Told of the settings already.
        return True


def _may_call(organization: Organization) -> bool:
    return not organization.is_suspended
