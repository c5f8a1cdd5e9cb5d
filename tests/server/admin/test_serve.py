"""``authz serve --admin``, as a process: one, or several workers that look like one."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz import cli
from authz.demo.issuer.signing import SigningKey
from authz.errors import ConfigError
from authz.runtime.network.unix_sockets import check_not_in_use
from tests.doubles import ORG, jwks, m2m_claims
from tests.programs import Program, run
from tests.server.admin.site import SECRET, SERVE, Site

POLICY = {
    "name": "ledger",
    "deny_rules": [{"name": "no-deletes", "request": {"methods": ["DELETE"]}}],
    "allow_rules": [{"name": "everybody"}],
}


@pytest.fixture(scope="module")
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(time.time()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ec_key: SigningKey) -> Path:
    folder: Path = tmp_path_factory.mktemp("admin")
    (folder / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    (folder / "policy.json").write_text(json.dumps(POLICY))
    return folder


@pytest.fixture(scope="module")
def workers(folder: Path) -> Iterator[Site]:
    """Return two workers; they take time to start, so the tests share them."""
    with Site(folder, "--workers", "2", "--policy", "policy.json", "--drain", "0") as site:
        site.until(lambda: len(site.get("overview")["workers"]) == 2)
        yield site


# ---- One process ----


@pytest.mark.parametrize("engine", ["grpcio", "native"])
def test_decisions_of_a_server_are_told_and_orders_obeyed(folder: Path, token: str, engine: str) -> None:
    with Site(folder, "--engine", engine) as site:
        before = site.check(token)
        done = site.order("suspend", ORG)
        after = site.check(token)
        told = site.get("decisions")["decisions"]
        totals = site.get("overview")["totals"]

    assert (before, after) == ([0], [7])
    assert (done["workers"], done["pending"]) == (1, 0)
    assert [(one["verdict"], one["reason"]) for one in told] == [
        ("allowed", ""),
        ("denied", "organization_suspended"),
    ]
    assert (totals["allowed"], totals["denied"]) == (1, 1)
    assert SECRET not in site.program.text
    assert token.rpartition(".")[2] not in site.program.text


# ---- Several workers ----


def test_workers_are_added_up(workers: Site, token: str) -> None:
    cursor, before = workers.get("decisions")["cursor"], workers.get("overview")["totals"]["allowed"]
    workers.check(token)
    news = workers.get(f"decisions?after={cursor}")
    overview, policy = workers.get("overview"), workers.get("policy")

    assert len(news["decisions"]) == 2
    assert news["decisions"] == sorted(news["decisions"], key=lambda one: one["time"])
    assert workers.get(f"decisions?after={news['cursor']}")["decisions"] == []
    assert overview["totals"]["allowed"] == before + 2
    assert [worker["number"] for worker in overview["workers"]] == [0, 1]
    assert overview["organizations"][0]["allowed"] == before + 2
    assert (policy["policy"], policy["rules"][1]["hits"]) == ("ledger", before + 2)


def test_any_worker_explains(workers: Site, token: str) -> None:
    question = {"method": "/a.B/C", "token": token}
    answer = workers.page.post("/api/explain", json=question)
    of_delete = workers.page.post("/api/explain", json={**question, "verb": "DELETE"})

    assert (answer.status_code, answer.json()["verdict"]) == (200, "allowed")
    assert (of_delete.status_code, of_delete.json()["policy"]["rule"]) == (200, "no-deletes")


def test_worker_that_is_started_again_keeps_out_whom_the_others_keep_out(workers: Site, token: str) -> None:
    done = workers.order("suspend", ORG)
    pids = {worker["pid"] for worker in workers.get("overview")["workers"]}
    suspended = workers.check(token)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    # They must refuse from their very first answer.
    killed = workers.check(token)
    workers.until(lambda: len({worker["pid"] for worker in workers.get("overview")["workers"]} - pids) == 2)
    told = workers.get("overview")["suspended"]
    workers.order("resume", ORG)

    assert (done["workers"], done["pending"]) == (2, 0)
    assert (suspended, killed, workers.check(token)) == ([7, 7], [7, 7], [0, 0])
    assert told == [ORG]


def test_workers_that_replace_others_know_who_is_kept_out(workers: Site, token: str) -> None:
    pids = {worker["pid"] for worker in workers.get("overview")["workers"]}
    workers.order("revoke", m2m_claims()["client_id"])
    workers.program.send(signal.SIGHUP)
    workers.until(lambda: len({worker["pid"] for worker in workers.get("overview")["workers"]} - pids) == 2)
    replaced = workers.check(token)
    workers.order("reinstate", m2m_claims()["client_id"])

    assert (replaced, workers.check(token)) == ([16, 16], [0, 0])


# ---- What is configured wrongly ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--admin", "nowhere"), "admin: 'nowhere' is neither HOST:PORT"),
        (("--admin", "unix:a.sock"), "admin: 'unix:a.sock' is not HOST:PORT, such as"),
        (("--admin", "0.0.0.0:9902"), "admin: '0.0.0.0:9902' can be reached by other machines"),
        (("--admin-secret-file", "short"), "admin_secret: shorter than 16 characters"),
        (("--admin-secret-file", "nowhere"), "admin_secret_file: 'nowhere' cannot be read"),
    ],
)
@pytest.mark.usefixtures("no_settings")
def test_wrong_configuration_is_said_in_one_line(
    tmp_path: Path, ec_key: SigningKey, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    (tmp_path / "short").write_text("fifteen-letters")
    status = cli.run([*SERVE, "--jwks", "jwks.json", "--check-config", *flags])
    out, err = capsys.readouterr()

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"authz: {message}")


@pytest.mark.usefixtures("no_settings")
def test_other_machines_may_look_only_where_that_is_said(
    tmp_path: Path, ec_key: SigningKey, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    monkeypatch.setenv("AUTHZ_ADMIN_SECRET", SECRET)
    flags = ("--admin", "0.0.0.0:0", "--admin-allow-remote")
    status = cli.run([*SERVE, "--jwks", "jwks.json", "--check-config", *flags])

    assert status == 0
    assert SECRET not in capsys.readouterr().out


def test_page_for_other_machines_is_warned_about(folder: Path) -> None:
    listen = ("--listen", f"unix:{folder}/b.sock", "--admin", "0.0.0.0:0", "--admin-allow-remote")
    with Program(*SERVE, "--jwks", "jwks.json", *listen, folder=folder) as program:
        warned = program.await_event("admin_without_tls")

    assert warned["level"] == "warning"


# ---- Orders in a file ----


def test_orders_outlive_a_server_that_keeps_them_in_a_file(folder: Path, token: str) -> None:
    with Site(folder, "--orders", "orders.jsonl") as site:
        site.order("suspend", ORG)
    with Site(folder, "--orders", "orders.jsonl") as site:
        started_again, told = site.check(token), site.get("overview")["suspended"]
        site.order("resume", ORG)
        resumed = site.check(token)

    assert (started_again, told, resumed) == ([7], [ORG], [0])


def are_free(*paths: Path) -> bool:
    try:
        check_not_in_use(map(str, paths))
    except ConfigError:
        return False
    return True


def test_orders_outlive_several_workers_and_their_supervisor(folder: Path, tmp_path: Path, token: str) -> None:
    shutil.copy(folder / "jwks.json", tmp_path)
    flags = ("--workers", "2", "--orders", "orders.jsonl")
    with Site(tmp_path, *flags) as site:
        site.until(lambda: len(site.get("overview")["workers"]) == 2)
        site.order("suspend", ORG)
        # No process has time to write anything at its end.
        site.program.send(signal.SIGKILL)
        site.program.wait()
        # They notice it, and end.
        site.until(lambda: are_free(tmp_path / "a.sock.0", tmp_path / "a.sock.1"))
    with Site(tmp_path, *flags) as site:
        told = [(each["verb"], each["id"], each["by"]) for each in site.get("overview")["orders"]]
        started_again = site.check(token)

    assert told == [("suspend", ORG, "admin page")]
    assert started_again == [7, 7]


def test_file_of_orders_that_cannot_be_read_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "orders.jsonl").write_text("nonsense\n")
    orders = str(tmp_path / "orders.jsonl")
    arguments = (*SERVE, "--jwks", "jwks.json", "--listen", f"unix:{tmp_path}/a.sock", "--orders", orders)
    done = run(*arguments, folder=folder)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"authz: orders: line 1 of {orders!r}: not JSON; mend it, or remove the line\n"
