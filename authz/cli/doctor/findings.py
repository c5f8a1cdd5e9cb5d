"""What a check finds: good, doubtful, wrong, or not looked at."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from authz.cli.doctor.remedies import REMEDIES
from authz.runtime.text.printable import printable

Level = Literal["ok", "warning", "error", "skipped"]

_LONGEST = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a check says.

    Args:
        level: how bad it is.
        code: its short name, one of :data:`authz.cli.doctor.remedies.REMEDIES`; empty for what is good, and for what
            there was no reason to look at.
        found: what there is.
        expected: what would be good.
        remedy: what to do about it.
        check: the name of the check.

    """

    level: Level
    found: str
    code: str = ""
    expected: str = ""
    remedy: str = ""
    check: str = ""

    def of(self, check: str, without_secrets: Callable[[str], str]) -> "Finding":
        """Return it as that of a check, without secrets, and all that others may have written made visible and cut."""
        # Secrets first: what is cut off in the middle of one would not be found.
        found, expected = (printable(without_secrets(text), _LONGEST) for text in (self.found, self.expected))
        return replace(self, check=check, found=found, expected=expected)

    @property
    def is_gap(self) -> bool:
        """Whether something that should have been looked at could not be."""
        return self.level == "skipped" and bool(self.code)

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        names = ("check", "level", "code", "found", "expected", "remedy")
        return {name: getattr(self, name) or None for name in names}


def ok(found: str) -> Finding:
    """Return what is as it should be."""
    return Finding(level="ok", found=found)


def skipped(because: str) -> Finding:
    """Return why there is no reason, or no way, to look."""
    return Finding(level="skipped", found=f"because {because}")


def fault(code: str, found: str, expected: str = "", *, level: Level | None = None) -> Finding:
    """Return a fault of a known kind, with its remedy.

    Args:
        code: one of :data:`authz.cli.doctor.remedies.REMEDIES`.
        found: what there is.
        expected: what would be good.
        level: how bad it is, where that differs from what the kind usually is.

    """
    known = REMEDIES[code]
    return Finding(level=level or known.level, code=code, found=found, expected=expected, remedy=known.text)
