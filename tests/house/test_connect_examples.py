"""The programs for Connect, in examples and documents, run in an empty folder and do what they say."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.demo.issuer.program import IssuerServer
from authz.demo.v1.ledger_connect import LedgerServiceClientSync
from authz.demo.v1.ledger_pb2 import EntryDraft, PostEntryRequest, ReconcileEntriesRequest
from tests.connect.wire import post
from tests.house.test_http_examples import ACME, FORGED, GLOBEX, ROOT, example, running, token

TEXT = (ROOT / "docs/connect.md").read_text(encoding="utf-8")
PROGRAMS = {name: text for text, name in re.findall(r"```python\n(# (\S+\.py)\n.*?)```", TEXT, re.DOTALL)}
POST = "/authz.demo.v1.LedgerService/PostEntry"
JSON = ("content-type", "application/json")


@pytest.fixture(scope="module")
def issuer() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


def test_every_program_of_the_document_is_tested() -> None:
    assert set(PROGRAMS) == {"connect_app.py", "connect_client.py"}


def test_server_and_client_of_the_document(issuer: IssuerServer, tmp_path: Path) -> None:
    with running(PROGRAMS["connect_app.py"], issuer, tmp_path) as port:
        status, refused = post(port, POST, [JSON], b"{}")
        program = PROGRAMS["connect_client.py"].replace("http://127.0.0.1:9190", issuer.url)
        program = program.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{port}")
        client = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
        )

    assert (status, refused[:61].decode() in TEXT) == (401, True)
    assert (client.stdout, client.stderr) == (f"posted for {ACME}\n", "")


def test_example_for_connect(issuer: IssuerServer, tmp_path: Path) -> None:
    with running(example("connect_server.py"), issuer, tmp_path) as port:
        posted = post(port, POST, [JSON, *FORGED, *token(issuer, 1)], b'{"draft": {"account": "a"}}')
        foreign = post(port, POST, [JSON, *token(issuer, 1)], f'{{"draft": {{"orgId": "{ACME}"}}}}'.encode())
        unknown = post(port, "/nothing", [JSON])
        with LedgerServiceClientSync(f"http://127.0.0.1:{port}") as client:
            lines = [ReconcileEntriesRequest(line=EntryDraft(account=name)) for name in "ab"]
            replies = list(client.reconcile_entries(iter(lines), headers=dict(token(issuer))))
            entry = client.post_entry(PostEntryRequest(), headers=dict(token(issuer))).entry

    assert (posted[0], json.loads(posted[1])["entry"]["orgId"]) == (200, GLOBEX)
    assert (foreign[0], json.loads(foreign[1])["code"]) == (403, "permission_denied")
    assert unknown[0] == 401
    assert {reply.entry.org_id for reply in replies} | {entry.org_id} == {ACME}
