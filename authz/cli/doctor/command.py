"""``authz doctor``."""

import contextlib
import json
import logging
import os
import shutil
import sys
import textwrap
import time
from collections import Counter
from typing import Annotated, get_args

from cyclopts import Parameter

from authz.cli.app import say, write
from authz.cli.doctor.examination import examine, status_of
from authz.cli.doctor.findings import Finding, Level
from authz.cli.doctor.subject import Evidence, Subject
from authz.cli.serve import ServeFlags
from authz.settings.settings import Settings

_COLOURS = {"ok": "32", "warning": "33", "error": "31", "skipped": "2"}
_INDENT = 10
# A file, and a program that reads, get each text in one line.
_WHOLE = 10_000


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
    is_terminal = sys.stdout.isatty()
    head = f"{finding.level:<{_INDENT}}{finding.check}: {finding.code or finding.found}"
    if is_terminal and "NO_COLOR" not in os.environ:
        write(_coloured(head, finding.level))
    else:
        say(head)
    if finding.code:
        rows = (("found", finding.found), ("expected", finding.expected), ("remedy", finding.remedy))
        width = shutil.get_terminal_size().columns if is_terminal else _WHOLE
        for name, text in rows:
            say(*_wrapped(name, text, width))


def _wrapped(name: str, text: str, width: int) -> list[str]:
    first = f"{'':<{_INDENT}}  {name:<{_INDENT}}"
    # A word that is longer stays whole, so that it can be copied.
    return textwrap.wrap(
        text,
        max(width, 2 * len(first)),
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _coloured(head: str, level: str) -> str:
    # Everything after the word has been made printable already.
    return f"\x1b[{_COLOURS[level]}m{level}\x1b[0m{head.removeprefix(level)}"


def _summary(findings: list[Finding]) -> str:
    counts = Counter(each.level for each in findings)
    errors, warnings = counts["error"], counts["warning"]
    gaps = sum(each.is_gap for each in findings)
    words = [f"{errors} error{'' if errors == 1 else 's'}", f"{warnings} warning{'' if warnings == 1 else 's'}"]
    words += [f"{gaps} not looked at"] if gaps else []
    return ", ".join(words)
