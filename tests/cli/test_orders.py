"""``authz suspend`` and the like, ``authz orders`` and ``authz replicas``, as a person or a script uses them."""

import contextlib
import getpass
import json
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from authz import Authorizer, SharedState, Verifier, cli
from authz.judge.orders.operator import Operator
from authz.judge.orders.order import MAX_TEXT, MICROSECONDS, Order, Subject
from authz.judge.orders.standing import Standing
from authz.judge.streams import OpenStreams
from authz.runtime.clock import SYSTEM_CLOCK
from authz.server.workos.applications import Application
from authz.server.workos.place import Cursor
from authz.server.workos.shared_place import SharedPlace
from authz.server.workos.shared_register import SharedRegister
from authz.store.connection import StoreError
from authz.store.orders_store import OrdersStore
from authz.store.replicas import Heartbeat, Replica, Replicas
from tests.programs import AUTHZ, PATIENCE, Program, environment
from tests.store.engines import KINDS, Engine

pytestmark = pytest.mark.usefixtures("no_settings")

ORG, ISSUER = "org_01JYACME000000000000000001", "https://acme.authkit.app"


class Done(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(request.param) as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine, monkeypatch: pytest.MonkeyPatch, no_settings: None) -> Engine:  # noqa: ARG001 - goes first
    """Return an empty store of each kind, which the variables of the commands name."""
    shared.flush()
    monkeypatch.setenv("AUTHZ_STORE", shared.url)
    return shared


@pytest.fixture
def run(engine: Engine, capsys: pytest.CaptureFixture[str]) -> Run:  # noqa: ARG001 - which the variables name
    """Return a function that runs the command in this process."""

    def run(*arguments: str) -> Done:
        status = cli.run(arguments)
        return Done(status, *capsys.readouterr())

    return run


@pytest.fixture
def known(engine: Engine) -> Iterator[Callable[[], list[Order]]]:
    """Return a function that says which orders the store knows."""
    store = engine.store()
    yield lambda: list(OrdersStore(store).load()[0])
    store.close()


# ---- Giving orders ----


def test_suspension_says_who_and_why(run: Run, known: Callable[[], list[Order]]) -> None:
    done = run("suspend", ORG, "--reason", "unpaid", "--until", "24h")
    [order] = known()

    assert done == (0, f"written: suspend organization {ORG}\n", "")
    assert (order.verb, order.kind, order.id, order.reason) == ("suspend", "organization", ORG, "unpaid")
    assert order.by == getpass.getuser()
    assert order.until == pytest.approx(time.time() + 86_400, abs=60)
    assert order.at == pytest.approx(time.time() * MICROSECONDS, abs=60 * MICROSECONDS)


@pytest.mark.parametrize("kind", ["client", "organization", "key"])
def test_revocation_is_of_one_thing_of_one_issuer_and_of_what_was_issued_before(
    run: Run, known: Callable[[], list[Order]], kind: str
) -> None:
    done = run("revoke", f"--{kind}", "-x1", "--issuer", ISSUER, "--issued-before", "now", "--by", "ops")
    [order] = known()

    assert (done.status, done.out) == (0, f"written: revoke {kind} -x1\n")
    assert order._replace(at=0, issued_before=None) == Order("revoke", kind, "-x1", ISSUER, by="ops")
    assert order.issued_before == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2100-01-31T18:00:00Z", 4105101600),
        ("2100-01-31t19:00:00.5+01:00", 4105101600.5),
        ("2100-01-31 18:00:00z", 4105101600),
        ("4105101600", 4105101600),
        ("4105101600.25", 4105101600.25),
    ],
)
def test_time_may_be_given_as_rfc_3339_or_in_seconds(
    run: Run, known: Callable[[], list[Order]], text: str, seconds: float
) -> None:
    assert run("suspend", ORG, "--until", text).status == 0
    assert [order.until for order in known()] == [seconds]


def test_token_is_revoked_by_its_id_and_reinstated(run: Run) -> None:
    assert run("revoke", "--token", "-id", "--until", "7d").status == 0
    listed = run("orders").out
    assert run("reinstate", "--token", "-id").status == 0

    assert re.fullmatch(r"-+ revoke token -id until \S+Z by \S+\n", listed) or " revoke token -id until " in listed
    assert run("orders") == (0, "", "")


def test_what_was_ordered_about_one_issuer_is_taken_back_without_its_name(run: Run) -> None:
    run("revoke", "--client", "c1", "--issuer", ISSUER)
    run("revoke", "--client", "c1")
    run("reinstate", "--client", "c1")

    assert run("orders").out == ""
    assert run("orders", "--all").out.count(" reinstate client c1") == 2


def test_order_is_of_whoever_the_variables_and_the_file_name(engine: Engine, run: Run, tmp_path: Path) -> None:
    (tmp_path / "fleet.env").write_text(f"AUTHZ_STORE={engine.url}\nAUTHZ_STORE_NAMESPACE=other\n")
    run("suspend", ORG, "--env-file", "fleet.env", "--store", engine.url)

    assert run("orders").out == ""
    assert f" suspend organization {ORG} by " in run("orders", "--store-namespace", "other").out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("revoke",), "revoke: give one of --client, --organization, --key and --token"),
        (("revoke", "--client", "a", "--key", "b"), "revoke: give one of"),
        (("reinstate",), "reinstate: give one of"),
        (("revoke", "--token", "aaa.bbb.ccc"), "token: this looks like a token; give its jti"),
        (("revoke", "--client", ""), "revoke: the id of the client is empty"),
        (("revoke", "--client", "a", "--issuer", ""), "issuer: is empty; leave it out for every issuer"),
        (("revoke", "--token", "a", "--issued-before", "now"), "issued_before: only for what has several tokens"),
        (("revoke", "--client", "a", "--issued-before", "24h"), "issued_before: '24h' is no time; give 20"),
        (("suspend", ORG, "--until", "tomorrow"), "until: 'tomorrow' is no time; give 20"),
        (("suspend", ORG, "--until", "2100-13-01T00:00:00Z"), "until: '2100-13-01T00:00:00Z' is no time"),
        (("suspend", ORG, "--until", "2100-01-01T00:00:00"), "until: '2100-01-01T00:00:00' is no time"),
        (("suspend", ORG, "--until", "1735689600000"), "until: '1735689600000' is no time"),
        (("suspend", ORG, "--until", "24"), "until: '24' is no time"),
        (("suspend", ORG, "--until", "now"), "until: that is past"),
        (("suspend", ORG, "--until", "999999999d"), "until: not a time"),
        (("suspend", ORG, "--wait", "0"), "wait: not a number of seconds above 0 and up to 3600"),
        (("suspend", ORG, "--wait", "nan"), "wait: not a number of seconds above 0"),
        (("suspend", ORG, "--reason", "x" * (MAX_TEXT + 1)), "reason: not a text of at most"),
        (("suspend",), 'Command "suspend" parameter ORGANIZATION requires'),
        (("orders", "import", "nowhere.jsonl"), "file: 'nowhere.jsonl' cannot be read"),
        (("orders", "export", "no/where.jsonl"), "file: 'no/where.jsonl' cannot be written"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_nothing_is_written(
    run: Run, known: Callable[[], list[Order]], arguments: tuple[str, ...], complaint: str
) -> None:
    done = run(*arguments)

    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"authz: {complaint}")
    assert known() == []


# ---- What may be wrong with the store ----


@pytest.mark.parametrize("command", [("suspend", ORG), ("orders",), ("replicas",), ("orders", "export", "-")])
@pytest.mark.parametrize(
    ("store", "complaint"),
    [
        ("unix:gone.sock", "store: unix:gone.sock cannot be reached; check the address"),
        ("", "store: must not be empty"),
        (None, "store: missing; set AUTHZ_STORE or --store, such as redis://127.0.0.1:6379"),
        ("redis://db.example", "store: db.example would get orders and the password without TLS; use rediss://"),
        ("http://db.example", "store: 'http://db.example' is not redis://"),
    ],
)
def test_store_that_cannot_be_used_is_one_line_with_the_remedy(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...], store: str | None, complaint: str
) -> None:
    options = () if store is None else ("--store", store)
    status = cli.run([*command, *options])
    out, err = capsys.readouterr()

    assert (status, out, err.count("\n")) == (3 if "reached" in complaint else 2, "", 1)
    assert err.startswith(f"authz: {complaint}")


def test_wrong_password_is_a_mistake_and_is_not_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("a-wrong-password")
    done = run("orders", "--store-username", "authz-operator", "--store-password-file", "password")

    assert (done.status, done.out) == (2, "")
    assert "refuses the user, the password or a command" in done.err
    assert "a-wrong-password" not in done.err


# ---- Lists and files ----


def test_list_has_every_order_in_force_the_latest_last(run: Run) -> None:
    run("suspend", "org_1", "--reason", "un\x1bpaid", "--by", "al\nice")
    run("suspend", "org_2")
    run("resume", "org_2")
    run("revoke", "--client", "c1", "--issuer", ISSUER, "--issued-before", "2027-01-31T18:00:00Z", "--by", "")
    lines = run("orders").out.splitlines()
    everything = run("orders", "--all").out.splitlines()

    assert [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", "", line) for line in lines] == [
        r"suspend organization org_1 by al\nice: un\x1bpaid",
        f"revoke client c1 of {ISSUER} issued before 2027-01-31T18:00:00Z",
    ]
    assert [line.split()[1:4] for line in everything] == [
        ["suspend", "organization", "org_1"],
        ["resume", "organization", "org_2"],
        ["revoke", "client", "c1"],
    ]


def test_what_has_ended_is_listed_only_with_all(engine: Engine, run: Run) -> None:
    store = engine.store()
    OrdersStore(store).restore([Order("suspend", "organization", "org_1", until=1_900_000_000, at=1)])
    OrdersStore(store).restore([Order("suspend", "organization", "org_2", until=time.time() - 1, at=2)])
    store.close()

    assert [line.split()[3] for line in run("orders").out.splitlines()] == ["org_1"]
    assert [json.loads(line)["id"] for line in run("orders", "--all", "--json").out.splitlines()] == ["org_1", "org_2"]


def test_file_of_orders_brings_them_to_another_store(engine: Engine, run: Run, tmp_path: Path) -> None:
    run("suspend", "org_1", "--by", "é")
    run("revoke", "--token", "t1")
    run("revoke", "--client", "c1")
    run("reinstate", "--client", "c1")
    exported = run("orders", "export", "orders.jsonl")
    before = run("orders", "--all", "--json").out
    engine.flush()
    imported = run("orders", "import", "orders.jsonl")

    assert (exported.status, exported.out) == (0, "orders.jsonl: 2 orders, 1 revoked token\n")
    assert (imported.status, imported.out) == (0, "orders.jsonl: 3 orders, 3 of them news\n")
    assert run("orders", "--all", "--json").out == before
    assert stat.S_IMODE((tmp_path / "orders.jsonl").stat().st_mode) == 0o600
    assert run("orders", "import", "orders.jsonl").out == "orders.jsonl: 3 orders, 0 of them news\n"


def test_of_two_orders_the_latest_counts_whichever_is_imported_last(run: Run) -> None:
    run("suspend", "org_1")
    run("orders", "export", "old.jsonl")
    run("resume", "org_1")
    run("orders", "import", "old.jsonl")

    assert run("orders").out == ""


def test_orders_pass_through_a_pipe(engine: Engine, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run("suspend", "org_1")
    (tmp_path / "piped").write_text(run("orders", "export", "-").out)
    engine.flush()
    with (tmp_path / "piped").open() as piped:
        monkeypatch.setattr("sys.stdin", piped)
        done = run("orders", "import", "-")

    assert (done.status, done.out) == (0, "-: 1 order, 1 of them news\n")
    assert " suspend organization org_1 " in run("orders").out


GOOD = Order("suspend", "organization", "org_1", at=1).text().decode()[:-1]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "bad.jsonl:2: not JSON"),
        ("[]", "bad.jsonl:2: not a JSON object"),
        (GOOD + "}", "bad.jsonl:2: at: missing, or not a number"),
        (GOOD + ',"at":-1}', "bad.jsonl:2: at: not a number of microseconds since 1970"),
        (GOOD + ',"at":"1"}', "bad.jsonl:2: at: missing, or not a number of microseconds since 1970"),
        (GOOD.replace("suspend", "expel") + ',"at":1}', "bad.jsonl:2: order: there is no 'expel'"),
        ("[" * 100_000, "bad.jsonl:2: not JSON"),
    ],
)
def test_file_with_a_bad_line_is_named_with_the_line_and_nothing_of_it_is_taken(
    run: Run, tmp_path: Path, line: str, complaint: str
) -> None:
    (tmp_path / "bad.jsonl").write_text(f'{GOOD},"at":1}}\n{line}\n')
    done = run("orders", "import", "bad.jsonl")

    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"authz: {complaint}")
    assert run("orders", "--all").out == ""


def test_subject_of_an_order_that_is_exported_stays_the_same() -> None:
    order = Order("revoke", "key", "k 1", ISSUER, at=5)

    assert Order.parse(order.text(), 5).subject == Subject("revoke", "key", "k 1", ISSUER)


# ---- Replicas ----


@pytest.fixture
def sharing(engine: Engine, new_verifier: Callable[..., Verifier]) -> Iterator[Callable[[], Authorizer]]:
    """Return a function that starts a replica, and returns its authorizer."""
    with contextlib.ExitStack() as running:

        def start(**options: Any) -> Authorizer:
            authorizer = Authorizer(running.enter_context(contextlib.closing(new_verifier(clock=SYSTEM_CLOCK))))
            running.enter_context(SharedState(engine.url, authorizer, **options))
            return authorizer

        yield start


def test_order_is_in_force_everywhere_when_the_command_has_waited(run: Run, sharing: Callable[[], Authorizer]) -> None:
    replicas = [sharing() for _ in range(3)]
    suspended = run("suspend", ORG, "--wait", "60")
    standing = [set(replica.standing.suspended_organizations) for replica in replicas]
    resumed = run("resume", ORG, "--wait", "60")

    assert (suspended.status, suspended.err) == (0, "")
    assert re.fullmatch(r"in force in 3 of 3 replicas after \d+\.\d s\n", suspended.out)
    assert standing == [{ORG}] * 3
    assert resumed.status == 0
    assert not any(replica.standing.suspended_organizations for replica in replicas)


def test_replica_that_does_not_answer_is_named_with_exit_code_1(
    engine: Engine, run: Run, sharing: Callable[[], Authorizer]
) -> None:
    sharing()
    store = engine.store()
    silent = Heartbeat(store, lambda: {"host": "pod-7", "region": "eu", "applied": "1-0"})
    silent.work()
    store.close()
    done = run("suspend", ORG, "--wait", "2")

    assert (done.status, done.err) == (1, "")
    assert re.fullmatch(rf"in force in 1 of 2 replicas after \d\.\d s\n  not yet in pod-7 eu {silent.id}\n", done.out)
    assert f" suspend organization {ORG} " in run("orders").out


def test_without_a_replica_an_order_is_written_and_not_confirmed(run: Run) -> None:
    done = run("suspend", ORG, "--wait", "0.01")

    assert (done.status, done.out) == (
        1,
        "written, but no replica has been seen; they need the same store and namespace\n",
    )


def test_order_that_is_written_counts_as_written_when_the_store_goes_away_meanwhile(
    run: Run, known: Callable[[], list[Order]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Replicas) -> list[Replica]:
        raise StoreError("unreachable", "valkey.internal")

    monkeypatch.setattr(Replicas, "all", gone)
    done = run("suspend", ORG, "--wait", "10")

    assert (done.status, done.err) == (1, "")
    assert done.out.startswith("written, but not confirmed: store: valkey.internal cannot be reached")
    assert [order.id for order in known()] == [ORG]


def test_replicas_are_listed_with_how_far_they_have_got(engine: Engine, run: Run) -> None:
    run("suspend", ORG)
    store = engine.store()
    last = OrdersStore(store).position().id
    about = {"region": "eu", "version": "1.2", "workers": 4, "policy": "gold", "keys_age": 7300, "started": 0}
    Heartbeat(store, lambda: {"host": "b\x1b", "applied": last, **about}).work()
    Heartbeat(store, lambda: {"host": "a", "applied": "", "started": time.time() - 90}).work()
    store.close()
    done = run("replicas")
    told = [json.loads(line) for line in run("replicas", "--json").out.splitlines()]
    rows = [line.split()[:-1] for line in done.out.splitlines()]

    assert rows == [
        ["HOST", "REGION", "VERSION", "WORKERS", "RUNNING", "ORDERS", "KEYS", "WORKOS", "POLICY"],
        ["a", "-", "-", "1", "1m", "not", "all", "-", "-", "none"],
        [r"b\x1b", "eu", "1.2", "4", f"{time.time() // 86_400:.0f}d", "all", "2h", "-", "gold"],
    ]
    assert {replica["host"]: replica["applied"] for replica in told} == {"a": "", "b\x1b": last}


def test_list_says_which_replica_follows_workos_and_how_far(engine: Engine, run: Run) -> None:
    store = engine.store()
    leads = Heartbeat(store, lambda: {"host": "a", "source_age": 1.5})
    waits = Heartbeat(store, lambda: {"host": "b", "source_age": 99.0, "source_error": "status 401\x1b[2J"})
    place = SharedPlace(store, lambda: leads.id)
    place.lead()
    for each in (leads, waits):
        each.work()
    before = run("replicas").out.splitlines()
    place.move([], Cursor("", 1764446400.0))
    moved = place.move([], Cursor("event_7", 1764446401.5))
    store.close()
    after = run("replicas").out.splitlines()
    told = {each["host"]: each for each in map(json.loads, run("replicas", "--json").out.splitlines())}

    assert moved
    assert [row.split()[8] for row in after[1:3]] == ["follows", "waits"]
    assert before[3:] == ["WorkOS is followed, and has told of no event yet", after[4]]
    assert after[3:] == [
        "WorkOS is followed up to event event_7 of 2025-11-29T20:00:01Z",
        r"  b does not hear it: status 401\x1b[2J",
    ]
    assert (told["a"]["is_leading"], told["a"]["cursor"]) == (True, {"id": "event_7", "at": 1764446401.5})
    assert (told["b"]["is_leading"], told["b"]["cursor"]) == (False, None)


def test_application_is_listed_with_its_name(engine: Engine, run: Run, tmp_path: Path) -> None:
    store = engine.store()
    register = SharedRegister(store, Operator(Standing(), OpenStreams(), clock=SYSTEM_CLOCK))
    register.keep([], {"client_1": Application("client_1", "conn_app_1", ORG, 'Tills "7"')})
    run("revoke", "--client", "client_1")
    run("revoke", "--client", "client_2")
    run("suspend", "client_1")
    listed = run("orders").out.splitlines()
    told = [json.loads(line) for line in run("orders", "--json").out.splitlines()]
    (tmp_path / "told").write_text("\n".join(map(json.dumps, told)), encoding="utf-8")

    assert [' "Tills "7""' in line for line in listed] == [True, False, False]
    assert [each.get("client_name") for each in told] == ['Tills "7"', None, None]
    assert run("orders", "import", str(tmp_path / "told")).out.endswith(": 3 orders, 0 of them news\n")
    with following(engine, tmp_path) as program:
        program.await_line(lambda line: "client client_1" in line)
        run("reinstate", "--client", "client_1")
        program.await_line(lambda line: 'reinstate client client_1 "Tills' in line)
    store.close()


def test_without_a_replica_the_list_says_so(run: Run) -> None:
    assert run("replicas") == (0, "no replica has been seen; they need the same store and namespace\n", "")
    assert run("replicas", "--json") == (0, "", "")


# ---- Following ----


@contextlib.contextmanager
def following(engine: Engine, folder: Path) -> Iterator[Program]:
    with Program("orders", "--follow", "--store", engine.url, folder=folder) as program:
        yield program
        program.send(signal.SIGINT)
        assert program.wait() == 128 + signal.SIGINT


def test_new_orders_are_followed_also_those_that_take_others_back(engine: Engine, run: Run, tmp_path: Path) -> None:
    run("suspend", "org_1")
    with following(engine, tmp_path) as program:
        program.await_line(lambda line: " suspend organization org_1 " in line)
        run("suspend", "org_2")
        program.await_line(lambda line: " suspend organization org_2 " in line)
        run("resume", "org_1")
        program.await_line(lambda line: " resume organization org_1 " in line)


def test_follower_ends_quietly_when_its_reader_has_gone_though_nothing_new_is_ordered(
    engine: Engine, run: Run, tmp_path: Path
) -> None:
    run("suspend", ORG)
    with subprocess.Popen(
        [*AUTHZ, "orders", "--follow", "--store", engine.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment({}),
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        first = program.stdout.readline()
        program.stdout.close()
        status, said = program.wait(PATIENCE), program.stderr.read()

    assert ORG in first.decode()
    assert (status, said) == (141, b"")


def test_follower_learns_what_an_older_copy_of_the_store_says(engine: Engine, run: Run, tmp_path: Path) -> None:
    run("suspend", "org_1")
    run("suspend", "org_2", "--store-namespace", "copy")
    with following(engine, tmp_path) as program:
        program.await_line(lambda line: " suspend organization org_1 " in line)
        with engine.client() as client, client.pipeline() as at_once:
            # Its log ends before the entry that was read last: the store would say nothing about it for ever.
            at_once.delete("authz:{orders}:log")
            at_once.xadd("authz:{orders}:log", {"o": b"0"}, id="5-1")
            for name in ("state", "epoch"):
                at_once.rename(f"copy:{{orders}}:{name}", f"authz:{{orders}}:{name}")
            at_once.execute()
        program.await_line(lambda line: " suspend organization org_2 " in line)

    assert program.text.count("org_1") == 1
