"""Tests that need what this machine does not have: they are left out, and the end of the run tells of it."""

import os
from typing import Any, NoReturn

import pytest

_REMEDY = "to run them: "


def leave_out(what: str, remedy: str) -> NoReturn:
    """Skip a test; in CI it fails instead.

    Args:
        what: the tests that are left out, and why.
        remedy: the one command that brings what they need.

    """
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; {_REMEDY}{remedy}", pytrace=False)
    pytest.skip(f"{what}; {_REMEDY}{remedy}")


def tell(terminal: Any) -> None:
    """Tell what was left out, as the last part of the summary."""
    reasons = [report.longrepr[2] for report in terminal.getreports("skipped") if isinstance(report.longrepr, tuple)]
    left_out = [reason.removeprefix("Skipped: ") for reason in reasons if _REMEDY in reason]
    if left_out:
        terminal.section("left out", yellow=True, bold=True)
    for reason in sorted(set(left_out)):
        terminal.line(f"{left_out.count(reason)} tests: {reason}")
