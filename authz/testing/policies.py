"""The tests of a policy as tests of pytest or unittest, one for each case of ``policy.test.yaml``."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

from authz.call.metadata import TrustedMetadata
from authz.policy import Policy
from authz.policy.explain.cases import Cases, file_beside


class PolicyCase:
    """One case of the tests of a policy.

    Args:
        name: that of the case.
        failure: returns what is wrong, in one line, or ``None``.

    """

    def __init__(self, name: str, failure: Callable[[], str | None]) -> None:
        self.name = name
        self._failure = failure

    def __str__(self) -> str:
        """Return the name of the case, for ``ids=str``."""
        return self.name

    def __repr__(self) -> str:
        """Return what it is, and its name."""
        return f"<PolicyCase {self.name!a}>"

    def check(self) -> None:
        """Ask the policy.

        Raises:
            AssertionError: it decides otherwise; the message says where the case stands, and what decided.

        """
        __tracebackhide__ = True  # for pytest: the message says it all
        failure = self._failure()
        if failure is not None:
            raise AssertionError(failure)


def policy_cases(
    policy: Policy | str | os.PathLike[str], tests: str | os.PathLike[str] | None = None
) -> list[PolicyCase]:
    """Return the cases that ``authz policy test`` runs, for ``pytest.mark.parametrize("case", …, ids=str)``.

    Args:
        policy: the policy file, or a policy, such as one of a descriptor set.
        tests: the file of the cases; by default ``policy.test.yaml`` beside ``policy.yaml``.

    Raises:
        ConfigError: something in a file is wrong; the message names file and line.
        TypeError: a policy without a file, and no tests.

    """
    if isinstance(policy, Policy):
        if tests is None:
            raise TypeError("policy_cases: a policy without a file has no tests beside it; give tests=")
        return _cases(policy, tests)
    return _cases(Policy.from_file(policy), file_beside(Path(policy)) if tests is None else tests)


def _cases(policy: Policy, tests: str | os.PathLike[str]) -> list[PolicyCase]:
    policy.check_headers(TrustedMetadata().reserved)
    cases = Cases.from_file(tests, policy)
    return [PolicyCase(name, functools.partial(cases.failure, index)) for index, name in enumerate(cases.names)]
