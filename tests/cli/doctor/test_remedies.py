"""Every fault has a remedy, stands in the document, and is found by a check."""

import re
from pathlib import Path

from authz.cli.doctor import examination
from authz.cli.doctor.remedies import REMEDIES

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs/doctor.md").read_text(encoding="utf-8")
SOURCES = "".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "authz/cli/doctor").rglob("*.py") if path.name != "remedies.py"
)


def test_the_document_has_every_fault_with_its_remedy() -> None:
    rows = re.findall(r"(?m)^\| `([a-z0-9-]+)` \| (\w+) \| (.+) \| (.+) \|$", DOCUMENT)

    assert {code: tuple(row) for code, *row in rows} == {code: tuple(remedy) for code, remedy in REMEDIES.items()}


def test_the_document_has_every_check_in_its_order() -> None:
    table = DOCUMENT.partition("| check |")[2].partition("\n\n")[0]

    assert re.findall(r"(?m)^\| `(\w+)` \|", table) == [name for name, _ in examination.CHECKS]


def test_every_fault_can_be_found() -> None:
    assert [code for code in REMEDIES if f'"{code}"' not in SOURCES] == []


def test_every_remedy_is_a_sentence_about_what_to_do() -> None:
    assert [code for code, remedy in REMEDIES.items() if not re.fullmatch(r"[A-Z`].*\.", remedy.text)] == []
