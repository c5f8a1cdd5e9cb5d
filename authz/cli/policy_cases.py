"""``authz policy test``."""

from pathlib import Path

from authz.cli.app import ALLOWED, DENIED
from authz.policy import Policy
from authz.policy.cases import Cases, file_beside
from authz.policy.explain import list_of, shown


def run_cases(file: Path, /, *, tests: Path | None = None) -> int:
    """Run the tests that stand beside a policy, and say which of them fail and why.

    Parameters
    ----------
    file
        The policy.
    tests
        The tests; by default policy.test.yaml beside policy.yaml.

    """
    results = Cases.from_file(file_beside(file) if tests is None else tests, Policy.from_file(file)).run()
    for failure in results.failures:
        print(failure)
    for rule in results.unreached:
        print(f"hint: rule {shown(rule.name)} of {list_of(is_deny=rule.is_deny)} decides in no test")
    print(f"{results.passed} passed, {len(results.failures)} failed")
    return DENIED if results.failures else ALLOWED
