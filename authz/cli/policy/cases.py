"""``authz policy test``."""

from pathlib import Path

from authz.cli.app import ALLOWED, DENIED, say
from authz.cli.policy.source import policy_of
from authz.errors import ConfigError
from authz.policy.explain.cases import Cases, file_beside
from authz.policy.explain.explanation import list_of_rule, shown


def run_cases(file: Path | None = None, /, *, tests: Path | None = None, descriptors: Path | None = None) -> int:
    """Run the tests of a policy, and say which fail and why.

    Parameters
    ----------
    file
        The policy file.
    tests
        The tests; by default policy.test.yaml beside policy.yaml.
    descriptors
        A descriptor set whose methods declare who may call them, instead of the file or in addition to it.

    """
    policy = policy_of(file, descriptors)
    if tests is None:
        tests = _beside(file)
    results = Cases.from_file(tests, policy).run()
    for failure in results.failures:
        say(failure)
    for rule in results.unreached:
        say(f"hint: rule {shown(rule.name)} of {list_of_rule(rule)} decides in no test")
    say(f"{results.passed} passed, {len(results.failures)} failed")
    return DENIED if results.failures else ALLOWED


def _beside(file: Path | None) -> Path:
    if file is None:
        raise ConfigError("tests: missing; without a policy file, give --tests policy.test.yaml")
    return file_beside(file)
