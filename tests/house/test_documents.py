"""The documents can be followed: links lead somewhere, modules that are named exist, lines are short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md"))]
FILES += sorted((ROOT / "docs").glob("*.md"))
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}


def prose(text: str) -> str:
    """Return a text without its blocks of code."""
    return re.sub(r"(?ms)^( *)```.*?^\1```$", "", text)


def anchors(text: str) -> set[str]:
    """Return what links within a document may lead to, as GitHub names headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", prose(text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def modules(text: str) -> list[str]:
    """Return the paths of modules and folders of the packages that a text names."""
    return re.findall(r"`((?:authz|interceptors|tests|mutants|fuzz|benchmarks)/(?:[\w./]*/|[\w./]+\.py)?)`", text)


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name: str) -> None:
    folder, text = (ROOT / name).parent, TEXTS[name]
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (folder / path).resolve() if path else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            lost.append(link)

    assert lost == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_module_that_is_named_exists(name: str) -> None:
    assert [path for path in modules(TEXTS[name]) if not (ROOT / path).exists()] == []


def test_a_module_that_does_not_exist_is_missed() -> None:
    named = modules(
        "`authz/judge/authorizer.py` asks `authz/judge/oracle.py` in `authz/judge/`, see `interceptors/aio/`"
    )

    assert [path for path in named if not (ROOT / path).exists()] == ["authz/judge/oracle.py"]


def test_every_room_is_described() -> None:
    rooms = {path.name for path in (ROOT / "authz").iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    table = TEXTS["docs/architecture.md"].partition("## The rooms")[2].partition("\n\nThe larger rooms")[0]

    assert {*rooms, "errors.py", "grpc_org_authz", "interceptors", "lazy.py"} == {
        path.removeprefix("authz/").removesuffix("/") for path in re.findall(r"(?m)^\| `([^`]+)` \|", table)
    }


@pytest.mark.parametrize("name", TEXTS)
def test_lines_are_short(name: str) -> None:
    """Of at most 120 characters, but for tables, whose rows cannot be broken."""
    assert [line for line in TEXTS[name].splitlines() if len(line) > 120 and not line.startswith("|")] == []


def test_the_contents_name_every_document() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)[#)]", TEXTS["docs/index.md"]))

    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
