"""The documents can be followed: links lead somewhere, modules that are named exist, lines are short."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import authz
import authz.connect
import authz.testing
import interceptors
import interceptors.aio

ROOT = Path(__file__).parents[2]
FILES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md"))]
FILES += sorted((ROOT / "docs").glob("*.md"))
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}
SITE = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


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


def test_every_document_is_a_page_of_the_site() -> None:
    """The build of the site says so too; this names the remedy within a second."""
    nav = SITE.partition("\nnav:\n")[2].partition("\n\n")[0]
    pages = set(re.findall(r"(?m)^ *- [^:]+: (\S+\.md)$", nav))
    adopted = set(re.findall(r"(?m)^    \S+\.md: (\S+\.md)$", SITE))
    documents = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}

    assert documents | adopted == pages, "give each document its place in nav, in mkdocs.yml"


def test_every_public_name_is_described_on_the_site() -> None:
    described = re.findall(r"(?m)^::: (\S+)$", "".join(path.read_text() for path in (ROOT / "docs/api").glob("*.md")))
    public = {
        f"{package.__name__}.{name}"
        for package in (authz, authz.connect, authz.testing, interceptors, interceptors.aio)
        for name in package.__all__
    }

    assert public - set(described) == set(), "add it to a page in docs/api"
    assert len(described) == len(set(described))


@pytest.mark.parametrize("name", TEXTS)
def test_every_address_on_the_web_is_well_formed(name: str) -> None:
    """Whether it answers is not asked: tests reach no network."""
    links = re.findall(r"\]\((https?:[^)\s]*)\)|<(https?:[^>\s]*)>", prose(TEXTS[name]))
    wrong = []
    for link in map("".join, links):
        address = urlsplit(link)
        here = address.hostname in {"127.0.0.1", "localhost"}
        if not here and (address.scheme != "https" or "." not in (address.hostname or "")):
            wrong.append(link)

    assert wrong == []
