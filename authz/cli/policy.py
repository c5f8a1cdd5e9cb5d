"""``authz policy``."""

from pathlib import Path

import cyclopts

from authz.cli.app import ALLOWED, app
from authz.cli.policy_cases import run_cases
from authz.cli.policy_diff import diff
from authz.cli.policy_explain import explain
from authz.policy import Policy
from authz.policy.schema import as_json

policy = cyclopts.App(name="policy", help="What each organization may do: check the file, test it, explain it.")
app.command(policy)
policy.command(run_cases, name="test")
policy.command(explain)
policy.command(diff)


@policy.command
def check(file: Path, /) -> int:
    """Check a policy file, and say in one line what is wrong with it and where.

    Parameters
    ----------
    file
        YAML, or JSON where its name ends in .json.

    """
    found = Policy.from_file(file)
    denying = sum(rule.is_deny for rule in found.rules)
    counts = f"{denying} deny rules, {len(found.rules) - denying} allow rules, {len(found.organizations)} organizations"
    print(f"{file}: {found.name}: {counts}")
    return ALLOWED


@policy.command
def schema() -> int:
    """Print the JSON Schema of policy files, for editors and other checkers."""
    print(as_json(), end="")
    return ALLOWED
