"""What the package says of itself on its page is true."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_system_with_a_classifier_is_one_that_is_tested() -> None:
    systems = [each for each in PROJECT["classifiers"] if each.startswith("Operating System")]

    assert systems == ["Operating System :: POSIX :: Linux"]
    assert sys.platform == "linux"


def test_links_lead_to_one_repository_and_one_site() -> None:
    urls = PROJECT["urls"]

    assert list(urls) == ["Homepage", "Documentation", "Repository", "Changelog", "Issues"]
    assert urls["Homepage"] == urls["Documentation"]
    assert all(urls[name].startswith(urls["Repository"]) for name in ("Changelog", "Issues"))


def test_what_the_readme_links_to_is_there() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)

    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
