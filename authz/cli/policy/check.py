"""``authz policy check``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from authz.call.verb import KNOWN, REGISTERED
from authz.cli.app import ALLOWED, MISUSED, complain, say, write
from authz.cli.policy.junit import Suite, save
from authz.cli.policy.source import files_of, policy_of
from authz.errors import ConfigError
from authz.policy import Policy
from authz.policy.explain.cases import Outcome, Results
from authz.policy.explain.explanation import impossible_paths, shown
from authz.policy.protos.access import access_of_file
from authz.runtime.text.schema import did_you_mean

_Report = dict[str, Any]


def check(
    *files: Path,
    descriptors: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    junit: Path | None = None,
) -> int:
    """Check policies, and say in one line what is wrong with each and where.

    Exit codes: 0 if all are good, 2 if one is not.

    Parameters
    ----------
    files
        Policy files: JSON if the name ends in .json, else YAML. A folder stands for the policies in it and below:
        policy.yaml, orders-policy.yaml, policy.json and the like.
    descriptors
        A descriptor set whose methods declare who may call them (buf build -o api.binpb), instead of the files or in
        addition to each of them.
    as_json
        Print one JSON object.
    junit
        Also write the results to this file, as JUnit XML.

    """
    reports = [_looked_at(file, descriptors) for file in files_of(files)]
    if descriptors is not None and not any(report["error"] for report in reports):
        reports.append(_declared(descriptors))
    reports = [report for report in reports if report["file"]]
    if junit is not None:
        save(junit, "authz policy check", list(map(_suite, reports)))
    if as_json:
        write(json.dumps({"files": reports}))
    else:
        for report in reports:
            _tell(report)
    return MISUSED if any(report["error"] for report in reports) else ALLOWED


def _looked_at(file: Path | None, descriptors: Path | None) -> _Report:
    name = str(file or "")
    try:
        policy = policy_of(file, descriptors)
    except ConfigError as error:
        return {"file": name or str(descriptors), "error": str(error)}
    denying = sum(rule.is_deny for rule in policy.rules)
    return {
        "file": name,
        "error": "",
        "policy": policy.name,
        "deny_rules": denying,
        "allow_rules": len(policy.rules) - denying,
        "organizations": len(policy.organizations),
        "hints": list(_hints(policy)),
    }


def _suite(report: _Report) -> Suite:
    file, good = report["file"], Results(outcomes=(Outcome("check", None, 0.0),), unreached=())
    return Suite(file, file, None if report["error"] else good, report["error"])


def _hints(policy: Policy) -> Iterator[str]:
    for rule in policy.rules:
        for path in impossible_paths(rule):
            yield f"rule {shown(rule.name)}: no method matches {shown(path)}; methods begin with /"
        for verb in sorted((rule.verbs or frozenset()) - REGISTERED):
            like = did_you_mean(verb, sorted(KNOWN))
            yield f"rule {shown(rule.name)}: {verb} is no registered HTTP method{like}"


def _declared(descriptors: Path) -> _Report:
    access = access_of_file(descriptors)
    silent = sorted(method for method, declared in access.items() if declared is None)
    hints = [f"{method} declares nothing, so no caller may call it unless the file says so" for method in silent]
    counts = {"methods": len(access), "declared": len(access) - len(silent)}
    return {"file": str(descriptors), "error": "", **counts, "hints": hints}


def _tell(report: _Report) -> None:
    if report["error"]:
        complain(report["error"], MISUSED)
        return
    if "policy" in report:
        kinds = {"deny_rules": "deny rule", "allow_rules": "allow rule", "organizations": "organization"}
        counts = ", ".join(_counted(report[key], kind) for key, kind in kinds.items())
        say(f"{report['file']}: {report['policy']}: {counts}")
    else:
        say(f"{report['file']}: {report['declared']} of {report['methods']} methods declare who may call them")
    for hint in report["hints"]:
        say(f"{report['file']}: hint: {hint}")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
