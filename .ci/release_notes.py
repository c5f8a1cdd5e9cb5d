"""Print what CHANGELOG.md says of a release, or say why that is not ready: python3 .ci/release_notes.py vX.Y.Z."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(tag: str) -> str:
    """Return the section of a release in the changelog.

    Args:
        tag: Its tag.

    Raises:
        SystemExit: The tag is not of this version, or the changelog does not tell of it.
    """
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if tag != f"v{version}":
        sys.exit(f"The tag is {tag!r}, and pyproject.toml has version {version}: the tag of that is v{version}.")
    sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for section in sections:
        heading, _, text = section.partition("\n")
        if re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", heading) and text.strip():
            return text.strip()
    sys.exit(f'CHANGELOG.md has no section "## [{version}] - YYYY-MM-DD" with text in it.')


if __name__ == "__main__":
    print(notes(*sys.argv[1:]))
