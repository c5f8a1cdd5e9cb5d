"""What MkDocs needs to make pages of documents that are written to be read on GitHub as well."""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
TABS = re.compile(r"(?ms)^<!-- tabs -->\n(.*?)^<!-- /tabs -->$")
TAB = re.compile(r"(?m)^\*\*(.+)\*\*$")
HOST = "grpc-org-authz.dev"
SCHEMAS = ROOT / "authz/cli/schemas"
FENCE = re.compile(r"(?ms)^( *)```.*?^\1```$")


def on_config(config: MkDocsConfig) -> None:
    """Name headings as GitHub does, so that links to them hold in both places."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the documents that stand elsewhere in the repository, and the JSON Schemas at the addresses in their $id."""
    for schema in SCHEMAS.glob("*.schema.json"):
        address = json.loads(schema.read_text(encoding="utf-8"))["$id"]
        # mike has the last release there, whatever version this is.
        _, _, place = address.partition("/latest/")
        if not address.startswith(f"https://{HOST}/") or not place:
            raise PluginError(f"{schema.name}: its $id, {address}, is no address of this site")
        files.append(File.generated(config, place, content=schema.read_text(encoding="utf-8")))
    for source, page in config.extra["adopted"].items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Lead links to where their targets are on the site, and make tabs."""
    if page.parent is None:
        # A page that stands alone needs no list of its neighbours.
        page.meta["hide"] = ["navigation"]
    adopted = config.extra["adopted"]
    uri = page.file.src_uri
    source = {page: source for source, page in adopted.items()}.get(uri, f"docs/{uri}")
    base = f"{config.repo_url.rstrip('/')}/blob/{config.extra['revision']}"

    def lead(link: re.Match[str]) -> str:
        target, anchor = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1])), link[2] or ""
        if not (ROOT / target).exists():
            raise PluginError(f"{source}: {link[0]} leads nowhere: there is no {target}")
        if target == "README.md":
            target = "docs/index.md" if not anchor else target
        there = adopted.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if there is None or (ROOT / target).is_dir():
            return f"{base}/{target}{anchor}"
        return posixpath.relpath(there, posixpath.dirname(uri) or ".") + anchor

    return TABS.sub(_tabs, _outside_of_code(markdown, lambda text: LINK.sub(lead, text)))


def on_post_page(output: str, **_: Any) -> str:
    """Name the dialog of the search for readers of the screen, which the theme does not."""
    return output.replace(' role="dialog">', ' role="dialog" aria-label="Search">')


def _outside_of_code(markdown: str, change: Any) -> str:
    parts, at = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, change(markdown[at:])])


def _tabs(block: re.Match[str]) -> str:
    """Return tabs of what stands between the comments: a bold line is the name of a tab, and begins it."""
    _, *parts = TAB.split(block[1])
    lines = []
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        lines += [f'=== "{name}"', "", *(f"    {line}".rstrip() for line in text.strip().splitlines()), ""]
    return "\n".join(lines)
