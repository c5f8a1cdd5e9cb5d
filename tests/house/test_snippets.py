"""Every block of code in the documents is checked here, or the tables say what else checks it, or why nothing does.

Programs and commands that print something are run besides, each by the tests of its subject. What is checked here is
every block: it can be parsed, and the names, arguments, options and keys in it exist.
"""

import ast
import importlib
import inspect
import json
import re
import shlex
import textwrap
import tomllib
import types
from collections.abc import Callable, Iterator
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from google.protobuf import message_factory, text_format

from authz.cli.program.commands import app
from authz.cli.program.table import PLAIN
from authz.policy import Policy
from authz.settings.config_file import read_document
from authz.settings.issuer import IssuerSettings
from authz.settings.issuers import issuers_of
from authz.v1 import policy_pb2
from tests.house.test_documents import TEXTS

# What is not checked here, by document and language.
ELSEWHERE = {
    ("docs/envoy.md", "go"): "needs Go, protobuf-go and generated code",
    ("docs/envoy.md", "text"): "a drawing",
    ("docs/forward-auth.md", "caddyfile"): "tests/server/forward_auth/test_proxies.py starts Caddy with it",
    ("docs/forward-auth.md", "nginx"): "tests/server/forward_auth/test_proxies.py starts nginx with it",
    ("docs/interceptors.md", "text"): "tests/house/test_shadowing.py raises these errors",
    ("docs/performance.md", "sh"): "tests/benchmarks/test_peers.py reads it",
    ("docs/partners.md", "go"): "tests/house/test_partners.py runs it",
    ("docs/partners.md", "java"): "tests/house/test_partners.py runs it",
    ("docs/partners.md", "javascript"): "tests/house/test_partners.py runs it",
    ("docs/partners.md", "proto"): "tests/house/test_partners.py makes code of it",
    ("docs/partners.md", "sh"): "tests/house/test_partners.py runs it",
    ("docs/policy.md", "jsonl"): "tests/policy/test_docs.py reads it with its policy",
    ("docs/testing.md", "text"): "tests/testing/test_docs.py has pytest print it",
}
# Programs of others, that stand in blocks for a shell.
PROGRAMS = {
    ".": "tests/house/test_tutorial.py activates the environment that the wheel is in",
    "cp": "copies a file to where Prometheus reads it",
    "curl": "needs what the document has started; the answers are asked for in tests of that program",
    "docker": "needs Docker; tests/house/test_image.py and test_deployed_store.py follow the files that it is given",
    "echo": "prints a variable",
    "envoy": "tests/e2e starts Envoy with what `authz envoy-config` prints",
    "export": "sets variables; they are checked as settings",
    "gh": "verifies what a release has published",
    "grep": "tests/house/test_tutorial.py runs it",
    "grpcurl": "needs a program in Go; tests/house/test_partners.py sends the same by others",
    "head": "shortens an answer",
    "helm": "needs a cluster; tests/house/test_chart.py renders the chart",
    "install": "copies files of deploy/systemd, which tests/house/test_deploy.py reads",
    "jq": "needs a Grafana",
    "kubectl": "needs a cluster; tests/house/test_deploy.py builds what it is given",
    "make": "is a target of the Makefile",
    "mkdir": "makes a folder",
    "openssl": "makes a random secret",
    "pip": "CI installs the wheel; the extras are checked",
    "pipx": "verifies what a release has published",
    "promtool": "needs Prometheus; tests/house/test_monitoring.py reads the same rules",
    "protoc": "needs protoc; tests/smoke.py runs it",
    "python": "runs a program that the document shows, and its tests run",
    "python3": "makes an environment",
    "sed": "changes a file",
    "source": "loads the completions that tests/cli/test_completion.py has printed",
    "systemctl": "needs systemd",
    "valkey-cli": "tests/house/test_deployed_store.py gives a store these users",
    "valkey-server": "tests/house/test_fleet_doc.py starts it",
}


class Block(NamedTuple):
    """A fenced block of a document."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: str, text: str) -> Iterator[Block]:
    for fence in re.finditer(r"(?ms)^( *)```(\w*)\n(.*?)^\1```$", text):
        yield Block(document, text.count("\n", 0, fence.start()) + 1, fence[2], textwrap.dedent(fence[3]))


ALL = [block for document, text in TEXTS.items() for block in blocks(document, text)]


def of(*languages: str) -> pytest.MarkDecorator:
    here = [block for block in ALL if block.language in languages and (block.document, block.language) not in ELSEWHERE]
    return pytest.mark.parametrize("block", here, ids=str)


def test_every_block_is_checked_or_has_a_reason() -> None:
    checked = {"console", "python", "proto", *LOADERS}
    every = {(block.document, block.language) for block in ALL}

    unchecked = {each for each in every if each[1] not in checked}
    assert unchecked <= set(ELSEWHERE), "check it here, or say in ELSEWHERE what checks it"
    assert set(ELSEWHERE) <= every


# ---- Python ----


def public_names() -> dict[str, Any]:
    packages = ["authz", "authz.connect", "authz.fastapi", "authz.testing", "interceptors"]
    modules = map(importlib.import_module, packages)
    return {name: getattr(module, name) for module in modules for name in dir(module) if not name.startswith("_")}


def unknown_names(tree: ast.AST) -> list[str]:
    """Return imports from our packages that fail, and attributes and arguments that public names do not have."""
    public, unknown = public_names(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"authz", "interceptors"}:
            module = importlib.import_module(str(node.module))
            public |= {each.name: getattr(module, each.name, None) for each in node.names if each.name in public}
            unknown += [f"{node.module}.{each.name}" for each in node.names if not _exists(node.module, each.name)]
        elif isinstance(node, ast.Call):
            called, name = _called(node.func, public)
            if name is not None and called is None:
                unknown.append(name)
            unknown += [f"{name}({keyword})" for keyword in _keywords(node) if called and not _takes(called, keyword)]
    return unknown


def _exists(module: str | None, name: str) -> bool:
    return hasattr(importlib.import_module(str(module)), name) or find_spec(f"{module}.{name}") is not None


def _called(function: ast.expr, public: dict[str, Any]) -> tuple[Any, str | None]:
    if isinstance(function, ast.Name) and function.id in public:
        return public[function.id], function.id
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in public:
        owner = public[function.value.id]
        if not isinstance(owner, types.ModuleType):
            return getattr(owner, function.attr, None), f"{function.value.id}.{function.attr}"
    return None, None


def _keywords(call: ast.Call) -> list[str]:
    return [keyword.arg for keyword in call.keywords if keyword.arg is not None]


def _takes(called: Callable[..., Any], keyword: str) -> bool:
    parameters = inspect.signature(called).parameters
    return keyword in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def parsed(text: str) -> ast.AST:
    """Return the tree of a block, whose ``…`` stand for what a reader fills in."""
    return ast.parse(re.sub(r"(?<![\w\"'])…|…(?=[,)\]])", "...", text), feature_version=(3, 11))


@of("python")
def test_python_can_be_compiled_and_names_what_exists(block: Block) -> None:
    assert unknown_names(parsed(block.text)) == []


def test_names_that_do_not_exist_are_missed() -> None:
    text = "from authz import Verifyer\nVerifier(issuer=1, audiense=2)\nPolicy.from_fils('p')\nOther(x=1)"

    assert unknown_names(ast.parse(text)) == ["authz.Verifyer", "Verifier(audiense)", "Policy.from_fils"]


# ---- Data ----


LOADERS: dict[str, Callable[[str], Any]] = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}


@of("yaml", "toml", "json")
def test_data_is_what_its_reader_takes(block: Block, tmp_path: Path) -> None:
    data = LOADERS[block.language](block.text)

    assert data
    if isinstance(data, dict) and "issuers" in data:
        (tmp_path / "secret").write_text("a-secret")
        (tmp_path / "issuers.yaml").write_text(block.text.replace("/run/secrets/globex", str(tmp_path / "secret")))
        issuers_of(read_document(str(tmp_path / "issuers.yaml")), IssuerSettings.model_construct())
    elif isinstance(data, dict) and "organizations_file" in data:
        # tests/policy/test_docs.py reads it with the file that it names.
        assert block.document == "docs/policy.md"
    elif isinstance(data, dict) and data.keys() & {"allow_rules", "deny_rules", "quotas", "organizations"}:
        # With what a policy needs besides the keys that are shown.
        Policy.from_document({"name": "shown", "allow_rules": [{"name": "all"}], **data})


@of("proto")
def test_options_of_proto_are_ours_and_can_be_read(block: Block) -> None:
    options = re.findall(r"\(authz\.v1\.(\w+)\)\s*=\s*(\{.*?\}(?=;)|\w+)", block.text, re.DOTALL)
    assert options
    for name, value in options:
        extension = policy_pb2.DESCRIPTOR.extensions_by_name[name]
        if extension.message_type is None:
            assert value in {"true", "false"}
        else:
            text_format.Parse(value[1:-1], message_factory.GetMessageClass(extension.message_type)())


# ---- Commands ----


def commands(text: str) -> Iterator[list[str]]:
    """Yield the commands of a block: their words, without what is redirected."""
    for line in re.findall(r"(?m)^\$ (.*)$", text.replace("\\\n", " ")):
        words = shlex.shlex(re.sub(r"\$\([^()]*\)", "-", line), posix=True, punctuation_chars=True)
        words.whitespace_split, words.commenters = True, "#"
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("|&;"):
                if command:
                    yield without_redirections(command)
                command = []
            else:
                command.append(word)


def without_redirections(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif set(word) <= set("<>"):
            skip = True
            kept = kept[:-1] if kept[-1:] == ["2"] else kept
        else:
            kept.append(word)
    return kept


def every_command() -> list[tuple[str, list[str]]]:
    return [(str(block), each) for block in ALL if block.language == "console" for each in commands(block.text)]


def program(words: list[str]) -> list[str]:
    """Return a command without the words of a loop and the variables before it."""
    while words and (words[0] in {"do", "done"} or re.match(r"\w+=", words[0])):
        words = words[1:]
    return [] if words[:1] == ["for"] else words


def test_every_program_is_ours_or_has_a_reason() -> None:
    used = {words[0].rpartition("/")[2] or words[0] for _, each in every_command() if (words := program(each))}

    assert used - {"authz"} == set(PROGRAMS), "say in PROGRAMS why it is not run, or what runs it"


OURS = [(place, words[1:]) for place, each in every_command() if (words := program(each))[:1] == ["authz"]]


@pytest.mark.parametrize("words", [words for _, words in OURS], ids=[f"{place} {words[0]}" for place, words in OURS])
def test_command_takes_its_options(words: list[str]) -> None:
    # Where … stands for a value, or for more options.
    pairs = zip(["", *words], words, strict=False)
    meant = [word.replace("…", "1") for before, word in pairs if word != "…" or before.startswith("--")]

    if meant[0] in PLAIN:
        importlib.import_module(f"authz.cli.plain.{meant[0]}").parser().parse_args(meant[1:])
    else:
        app.parse_args(meant, exit_on_error=False, print_error=False)


def test_every_extra_that_is_installed_is_there() -> None:
    named = re.findall(r"grpc-org-authz\[([\w,]+)\]", "".join(TEXTS.values()))

    assert {extra for each in named for extra in each.split(",")} <= set(
        metadata("grpc-org-authz").get_all("Provides-Extra", [])
    )
