"""``authz doctor``."""

import contextlib
import json
import logging
import os
import sys
import time
from collections import Counter
from typing import Annotated, get_args

from cyclopts import Parameter

from authz.cli.app import say, write
from authz.cli.doctor.examination import examine, status_of
from authz.cli.doctor.findings import Finding, Level
from authz.cli.doctor.subject import Evidence, Subject
from authz.settings.settings import Settings

ServeFlags = Annotated[Settings | None, Parameter(name="*")]

_COLOURS = {"ok": "32", "warning": "33", "error": "31", "skipped": "2"}
_INDENT = 10


def doctor(
    *,
    evidence: Evidence | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    flags: ServeFlags = None,
) -> int:
    """Look at everything that `authz serve` needs, and say what is wrong and how to put it right.

    It takes the settings of `authz serve`, changes nothing, and prints no secret. Exit codes: 0 all is well, perhaps
    with warnings; 1 an error was found; 2 wrong usage, or settings that cannot be read; 3 something could not be
    looked at.

    Parameters
    ----------
    as_json
        Print one JSON object.

    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # What the checks say is said once, and in words.
    logging.disable(logging.CRITICAL)
    try:
        began = time.monotonic()
        subject = Subject(settings=Settings.load(flags), evidence=evidence or Evidence())
        findings: list[Finding] = []
        with contextlib.closing(subject):
            for each in examine(subject):
                findings.append(each)
                if not as_json:
                    _say(each)
        if as_json:
            write(json.dumps(_report(findings, time.monotonic() - began)))
        else:
            say("", _summary(findings))
    finally:
        logging.disable(logging.NOTSET)
    return status_of(findings)


def _report(findings: list[Finding], took: float) -> dict[str, object]:
    counts = Counter(each.level for each in findings)
    return {
        "status": status_of(findings),
        "counts": {level: counts[level] for level in get_args(Level)},
        "seconds": round(took, 2),
        "findings": [each.as_data() for each in findings],
    }


def _say(finding: Finding) -> None:
    head = f"{finding.level:<{_INDENT}}{finding.check}: {finding.code or finding.found}"
    if _has_colours():
        write(_coloured(head, finding.level))
    else:
        say(head)
    rows = (
        [("found", finding.found), ("expected", finding.expected), ("remedy", finding.remedy)] if finding.code else []
    )
    say(*(f"{'':<{_INDENT}}  {name:<10}{text}" for name, text in rows if text))
    sys.stdout.flush()


def _coloured(head: str, level: str) -> str:
    # Everything after the word has been made printable already.
    return f"\x1b[{_COLOURS[level]}m{level}\x1b[0m{head.removeprefix(level)}"


def _has_colours() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _summary(findings: list[Finding]) -> str:
    counts = Counter(each.level for each in findings)
    errors, warnings = counts["error"], counts["warning"]
    gaps = sum(each.is_gap for each in findings)
    words = [f"{errors} error{'' if errors == 1 else 's'}", f"{warnings} warning{'' if warnings == 1 else 's'}"]
    words += [f"{gaps} not looked at"] if gaps else []
    return ", ".join(words)
