"""``authz policy test``."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from authz.cli.app import ALLOWED, DENIED, MISUSED, complain, say, write
from authz.cli.policy.junit import Suite, save
from authz.cli.policy.source import files_of, policy_of
from authz.errors import ConfigError
from authz.policy.explain.cases import Cases, file_beside
from authz.policy.explain.explanation import list_of_rule, shown


def run_cases(
    *files: Path,
    tests: Path | None = None,
    descriptors: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    junit: Path | None = None,
) -> int:
    """Run the tests of policies, and say which fail and why.

    Exit codes: 0 if all pass, 1 if one fails, 2 if one of the files is wrong.

    Parameters
    ----------
    files
        Policy files, whose tests are policy.test.yaml beside policy.yaml; either may be named. A folder stands for the
        policies in it and below: policy.yaml, orders-policy.yaml, policy.json and the like.
    tests
        The tests of the only policy, if they are elsewhere.
    descriptors
        A descriptor set whose methods declare who may call them, instead of the files or in addition to each of them.
    as_json
        Print one JSON object.
    junit
        Also write the results to this file, as JUnit XML.

    """
    found = files_of(files)
    if tests is not None and len(found) > 1:
        raise ConfigError("tests: give them with one policy only; those of several are beside them")
    if tests is None and descriptors is not None and found == [None]:
        raise ConfigError("tests: missing; without a policy file, give --tests policy.test.yaml")
    suites = [_suite(file, tests, descriptors) for file in found]
    if junit is not None:
        save(junit, "authz policy test", suites)
    if as_json:
        write(json.dumps({"files": list(map(_as_data, suites))}))
    else:
        for suite in suites:
            _tell(suite)
    if any(suite.error for suite in suites):
        return MISUSED
    return DENIED if any(suite.results.failures for suite in suites if suite.results) else ALLOWED


def _suite(file: Path | None, tests: Path | None, descriptors: Path | None) -> Suite:
    name = str(file or descriptors or "")
    cases = tests or (file_beside(file) if file else Path())
    try:
        results = Cases.from_file(cases, policy_of(file, descriptors)).run()
    except ConfigError as error:
        return Suite(name, str(cases), None, str(error))
    return Suite(name, str(cases), results)


def _tell(suite: Suite) -> None:
    if suite.results is None:
        complain(suite.error, MISUSED)
        return
    for failure in suite.results.failures:
        say(failure)
    for rule in suite.results.unreached:
        say(f"{suite.file}: hint: rule {shown(rule.name)} of {list_of_rule(rule)} decides in no test")
    say(f"{suite.file}: {suite.results.passed} passed, {len(suite.results.failures)} failed")


def _as_data(suite: Suite) -> dict[str, Any]:
    data: dict[str, Any] = {"file": suite.file, "tests": suite.tests, "error": suite.error}
    if suite.results is None:
        return data
    return {
        **data,
        "passed": suite.results.passed,
        "failed": len(suite.results.failures),
        "cases": [{"name": each.name, "failure": each.failure or ""} for each in suite.results.outcomes],
        "unreached": [{"list": list_of_rule(rule), "rule": rule.name} for rule in suite.results.unreached],
    }
