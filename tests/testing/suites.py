"""Test suites of users, run as they run them: by a process, in a folder with nothing else in it."""

import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests import programs

PYTHON = (sys.executable, "-W", "error")
PYTEST = (sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "--junitxml=report.xml")


class Report(NamedTuple):
    """What pytest has written: the words on the terminal, and by test its failure, empty if there is none."""

    status: int
    text: str
    count: int
    tests: Mapping[str, str]

    @property
    def failed(self) -> set[str]:
        return {name for name, failure in self.tests.items() if failure}


def written(folder: Path, files: Mapping[str, str]) -> Path:
    """Write a suite into ``folder``, and return that."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def run_pytest(folder: Path, *arguments: str, **variables: str) -> Report:
    """Run pytest in ``folder``; a warning is an error there."""
    done = programs.run(*arguments, folder=folder, command=PYTEST, **variables)
    report = folder / "report.xml"
    suites = ET.parse(report).getroot() if report.exists() else ET.Element("testsuites")  # noqa: S314 - pytest wrote it
    cases = list(suites.iter("testcase"))
    tests: dict[str, str] = {}
    for case in cases:
        failure = "".join(str(failure.get("message")) for failure in case)
        # Tests of several files may have one name.
        tests[str(case.get("name"))] = tests.get(str(case.get("name")), "") + failure
    return Report(done.returncode, done.stdout + done.stderr, len(cases), tests)


def run_unittest(folder: Path, *arguments: str, **variables: str) -> str:
    """Run unittest in ``folder``, with its own arguments; return what it says, which ends in OK."""
    command = (*PYTHON, "-m", "unittest")
    done = programs.run(*arguments, folder=folder, command=command, **variables)
    return done.stderr
