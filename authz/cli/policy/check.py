"""``authz policy check`` and ``authz policy schema``."""

from pathlib import Path

from authz.call.verb import KNOWN, REGISTERED
from authz.cli.app import ALLOWED, say, write
from authz.cli.policy.source import policy_of
from authz.policy.explain.explanation import impossible_paths, shown
from authz.policy.protos.access import access_of_file
from authz.policy.text.schema import as_json, did_you_mean


def check(file: Path | None = None, /, *, descriptors: Path | None = None) -> int:
    """Check a policy, and say in one line what is wrong and where.

    Parameters
    ----------
    file
        The policy file: JSON if its name ends in .json, else YAML.
    descriptors
        A descriptor set whose methods declare who may call them (buf build -o api.binpb), instead of the file or in
        addition to it.

    """
    found = policy_of(file, descriptors)
    if file is not None:
        denying = sum(rule.is_deny for rule in found.rules)
        counts = (
            _counted(denying, "deny rule"),
            _counted(len(found.rules) - denying, "allow rule"),
            _counted(len(found.organizations), "organization"),
        )
        say(f"{file}: {found.name}: {', '.join(counts)}")
        for rule in found.rules:
            for path in impossible_paths(rule):
                say(f"hint: rule {shown(rule.name)}: no method matches {shown(path)}; methods begin with /")
            for verb in sorted((rule.verbs or frozenset()) - REGISTERED):
                like = did_you_mean(verb, sorted(KNOWN))
                say(f"hint: rule {shown(rule.name)}: {verb} is no registered HTTP method{like}")
    if descriptors is not None:
        access = access_of_file(descriptors)
        silent = sorted(method for method, declared in access.items() if declared is None)
        say(f"{descriptors}: {len(access) - len(silent)} of {len(access)} methods declare who may call them")
        for method in silent:
            say(f"hint: {method} declares nothing, so no caller may call it unless the file says so")
    return ALLOWED


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def schema() -> int:
    """Print the JSON Schema of policy files, for editors and other tools."""
    write(as_json())
    return ALLOWED
