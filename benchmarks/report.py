"""The figures that are kept, and how those of a new run take their place, each with its date."""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

LATEST = Path(__file__).with_name("latest.json")
PACKAGES = (
    "grpcio",
    "protobuf",
    "jwcrypto",
    "cryptography",
    "cachetools",
    "fastapi",
    "starlette",
    "pyjwt",
    "joserfc",
    "authlib",
)

Report = dict[str, Any]


def kept() -> Report:
    """Return the figures that were kept last."""
    found: Report = json.loads(LATEST.read_text(encoding="utf-8"))
    return found


def begun() -> Report:
    """Return a report without figures: what they are measured with."""
    return {
        "python": platform.python_version(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in PACKAGES},
        "measured": {},
    }


def add(report: Report, name: str, figures: Mapping[str, object], seconds: float) -> None:
    """Add the figures of one benchmark, with the day and how long it took."""
    report[name] = figures
    report["measured"][name] = {"on": datetime.now(UTC).date().isoformat(), "seconds": round(seconds, 1)}


def overlaid(old: Report, new: Report) -> Report:
    """Return the new figures, and of the old ones those that were not measured anew.

    The text form of JSON decides what a key is, so that kept figures and new ones look the same.
    """
    both: Report = json.loads(json.dumps({**old, **new}))
    both["measured"] = {**old.get("measured", {}), **new["measured"]}
    return both


def keep(report: Report) -> None:
    """Write the figures that are kept."""
    LATEST.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
