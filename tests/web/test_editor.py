"""What an editor shows with our schemas: keys to choose from, what they mean, and mistakes, by yaml-language-server."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authz.demo.issuer.directory import DEFAULT_FILE
from tests.house.schemas import FOLDER
from tests.programs import PATIENCE

POLICY = """\
# yaml-language-server: $schema=policy.schema.json
name: ledger
allow_rules:
- name: customers
  source: {groups: [trial]}
organizations:
  org_a: {groups: [trial], status: active}
"""


class Editor:
    """An editor that has opened files in one folder: it asks the language server over its standard input."""

    def __init__(self, npm_clients: Path, folder: Path) -> None:
        program = npm_clients / "node_modules/yaml-language-server/bin/yaml-language-server"
        self._folder, self._number, self._uri = folder, 0, ""
        self._process = subprocess.Popen(
            [shutil.which("node") or "node", program, "--stdio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.ask("initialize", processId=None, rootUri=folder.as_uri(), capabilities={})
        self._send(method="initialized", params={})
        settings = {"yaml": {"schemaStore": {"enable": False}, "completion": True, "hover": True, "validate": True}}
        self._send(method="workspace/didChangeConfiguration", params={"settings": settings})

    def close(self) -> None:
        """End the language server."""
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)

    def open(self, text: str) -> list[str]:
        """Open another file, and return what is wrong with it."""
        self._number += 1
        self._uri = uri = (self._folder / f"{self._number}.yaml").as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._send(method="textDocument/didOpen", params={"textDocument": document})
        while (message := self._receive()).get("method") != "textDocument/publishDiagnostics":
            pass
        assert message["params"]["uri"] == uri
        return [each["message"] for each in message["params"]["diagnostics"]]

    def ask(self, method: str, **params: Any) -> Any:
        """Ask a question, and return the answer."""
        self._number += 1
        self._send(id=self._number, method=method, params=params)
        while (message := self._receive()).get("id") != self._number or "method" in message:
            pass
        return message["result"]

    def at(self, question: str, line: int, character: int) -> Any:
        """Ask about a place in the file that was opened last; both numbers begin at 0."""
        place = {"line": line, "character": character}
        return self.ask(f"textDocument/{question}", textDocument={"uri": self._uri}, position=place)

    def _send(self, **message: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        headers = dict(iter(lambda: tuple(self._process.stdout.readline().split(b": ")), (b"\r\n",)))
        message: dict[str, Any] = json.loads(self._process.stdout.read(int(headers[b"Content-Length"])))
        if "method" in message and "id" in message:
            # A question of the server, such as for settings: none but those above.
            self._send(id=message["id"], result=None)
        return message


@pytest.fixture(scope="module")
def editor(npm_clients: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    folder = tmp_path_factory.mktemp("editor")
    for file in FOLDER.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    editor = Editor(npm_clients, folder)
    yield editor
    editor.close()


def named(name: str, text: str) -> str:
    return f"# yaml-language-server: $schema={name}.schema.json\n{text}"


GOOD = {
    "policy": POLICY,
    "policy-test": named("policy-test", "- {name: t, method: /a.B/C, organization: org_a, expect: denied}\n"),
    "organizations": named("organizations", DEFAULT_FILE.read_text(encoding="utf-8").partition("\n")[2]),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_file_that_is_good_is_not_marked(editor: Editor, name: str) -> None:
    assert editor.open(GOOD[name]) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("policy", "  source:", "  sauce:", "Property sauce is not allowed."),
        ("policy", "[trial]}\norg", "[]}\norg", "Array has too few items. Expected 1 or more."),
        ("policy", "[trial]}\norg", "['a b']}\norg", "not a word of letters, digits, dots, hyphens"),
        ("policy", "name: ledger\n", "", 'Missing property "name".'),
        ("policy", "active", "asleep", 'Value is not accepted. Valid values: "active", "suspended".'),
        ("policy-test", "organization: org_a, ", "", 'Missing property "organization".'),
        ("policy-test", "denied", "deny", 'Value is not accepted. Valid values: "allowed", "denied", "suspended"'),
        ("organizations", "    external_id", "    tenant", "Property tenant is not allowed."),
    ],
)
def test_a_mistake_is_marked(editor: Editor, name: str, old: str, new: str, said: str) -> None:
    found = editor.open(GOOD[name].replace(old, new, 1))

    assert any(each.startswith(said) for each in found), found


@pytest.mark.parametrize(
    ("before", "offered"),
    [
        ("", {"deny_rules", "public", "introspect", "quotas", "default_quota"}),
        ("deny_rules:\n- name: r\n  source:\n    ", {"principals", "organizations", "groups", "clients", "scopes"}),
        ("deny_rules:\n- name: r\n  request:\n    ", {"paths", "methods", "headers"}),
        ("introspect:\n  /a.B/C:\n    if_unavailable: ", {"deny", "local"}),
        ("quotas:\n  gold:\n    ", {"requests_per_second", "burst", "concurrent_streams"}),
    ],
)
def test_keys_and_values_are_offered(editor: Editor, before: str, offered: set[str]) -> None:
    text = POLICY + before
    editor.open(text)

    lines = text.split("\n")
    answer = editor.at("completion", len(lines) - 1, len(lines[-1]))
    assert offered <= {item["label"] for item in answer["items"]}


def test_what_a_key_means_is_shown(editor: Editor) -> None:
    editor.open(POLICY)

    shown = editor.at("hover", 2, 3)["contents"]["value"]
    assert "Allow rules" in shown
    assert "Applied next; a match allows, no match denies." in shown
