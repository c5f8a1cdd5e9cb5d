"""Orders outlive the process that got them, whatever happens to their file."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authz import OrdersFile
from authz.errors import ConfigError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.judge.orders.operator import NotKeptError
from authz.judge.orders.order import Order
from tests.doubles import ORG, ManualClock
from tests.events import told
from tests.full_disk import room_for

PATIENCE = 120

NewAuthorizer = Callable[[], Authorizer]


@pytest.fixture
def new_authorizer(new_verifier: Callable[..., Verifier]) -> NewAuthorizer:
    return lambda: Authorizer(new_verifier())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.jsonl"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def restarted(path: Path, authorizer: Authorizer) -> Authorizer:
    """Return ``authorizer`` after it has heard what is in the file."""
    with OrdersFile(path, authorizer):
        return authorizer


def test_orders_of_every_kind_outlive_a_restart(path: Path, new_authorizer: NewAuthorizer) -> None:
    first = new_authorizer()
    with OrdersFile(path, first):
        first.suspend(org_id=ORG, reason="unpaid", by="ann", until=4e9)
        first.suspend(org_id="org_forgiven")
        first.resume(org_id="org_forgiven")
        first.revoke(client_id="client_1", issued_before=1e9)
        first.revoke(key_id="kid", issuer="https://acme.authkit.app")
        first.revoke(token_id="jti_1")
        first.revoke(token_id="jti_2", issuer="https://acme.authkit.app")
        first.revoke(token_id="jti_back")
        first.reinstate(token_id="jti_back")
    second = restarted(path, new_authorizer())

    assert set(second.operator.book) == set(first.operator.book)
    assert dict(second.operator.book.tokens) == dict(first.operator.book.tokens)
    assert second.standing.suspended_organizations == {ORG}
    assert second.operator.book.about("suspend", "organization", ORG)[""].reason == "unpaid"


def test_order_is_on_the_disk_when_its_giver_is_answered(
    path: Path, new_authorizer: NewAuthorizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorizer = new_authorizer()
    synced: list[int] = []
    with OrdersFile(path, authorizer):
        monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
        authorizer.suspend(org_id=ORG)
        size = path.stat().st_size

    assert size in synced
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(f"{path}.lock").stat().st_mode) == 0o600


def test_order_given_before_the_file_was_there_is_kept_too(path: Path, new_authorizer: NewAuthorizer) -> None:
    authorizer = new_authorizer()
    authorizer.suspend(org_id=ORG)
    authorizer.revoke(token_id="jti")
    restarted(path, authorizer)
    told_later = restarted(path, new_authorizer())

    assert told_later.standing.suspended_organizations == {ORG}
    assert " jti" in told_later.operator.book.tokens


def test_line_that_a_crash_cut_off_is_dropped_and_the_next_one_stands_alone(
    path: Path, new_authorizer: NewAuthorizer
) -> None:
    first = new_authorizer()
    with OrdersFile(path, first):
        first.suspend(org_id=ORG)
        first.suspend(org_id="org_cut")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    second = new_authorizer()
    with told("orders_line_dropped") as events, OrdersFile(path, second):
        second.suspend(org_id="org_later")
    third = restarted(path, new_authorizer())

    assert [event["line"] for event in events] == [2]
    assert third.standing.suspended_organizations == {ORG, "org_later"}


def test_last_line_written_by_hand_counts_although_it_has_no_end(path: Path, new_authorizer: NewAuthorizer) -> None:
    path.write_text('{"verb":"suspend","kind":"organization","id":"org_hand","at":1}')
    authorizer = new_authorizer()
    with OrdersFile(path, authorizer):
        authorizer.suspend(org_id=ORG)

    assert [each["id"] for each in lines_of(path)] == ["org_hand", ORG]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"nonsense\n", "not JSON"),
        (b"\n", "not JSON"),
        (b"\xff\n", "not JSON"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b"[]\n", "not a JSON object"),
        (b'{"tokens":7}\n', "tokens: not a list"),
        (b'{"tokens":[["jti",1]]}\n', "tokens: not a list"),
        (b'{"tokens":[[" jti","1"]]}\n', "tokens: not a list"),
        (b'{"at":1}\n', "lacks its verb"),
        (b'{"verb":"suspend","kind":"organization","id":"o"}\n', "at: missing"),
        (b'{"verb":"suspend","kind":"organization","id":"o","at":true}\n', "at: missing"),
        (b'{"verb":"suspend","kind":"organization","id":"o","at":-1}\n', "at: not a number"),
        (b'{"verb":"suspend","kind":"client","id":"o","at":1}\n', "only an organization"),
    ],
)
def test_any_other_line_that_is_no_order_is_an_error_that_says_where(
    path: Path, new_authorizer: NewAuthorizer, line: bytes, why: str
) -> None:
    good = b'{"verb":"suspend","kind":"organization","id":"o","at":1}\n'
    path.write_bytes(good + line + good)
    with pytest.raises(ConfigError) as caught:
        restarted(path, new_authorizer())

    assert "line 2 of" in str(caught.value)
    assert str(path) in str(caught.value)
    assert why in str(caught.value)
    # It is not taken by a process that does not use it.
    path.write_bytes(good)
    restarted(path, new_authorizer())


def test_what_is_superseded_is_cleared_out_and_nothing_lost(path: Path, new_authorizer: NewAuthorizer) -> None:
    authorizer = new_authorizer()
    with OrdersFile(path, authorizer):
        authorizer.revoke(token_id="jti")
        for _ in range(600):
            authorizer.suspend(org_id=ORG)
            authorizer.resume(org_id=ORG)
        authorizer.suspend(org_id="org_last")

    assert len(lines_of(path)) < 1200
    told_later = restarted(path, new_authorizer())
    assert told_later.standing.suspended_organizations == {"org_last"}
    assert " jti" in told_later.operator.book.tokens
    assert sorted(each.name for each in path.parent.iterdir()) == ["orders.jsonl", "orders.jsonl.lock"]


def test_place_of_a_source_is_kept_with_its_orders(path: Path, new_authorizer: NewAuthorizer) -> None:
    first, second = {"id": "event_1", "at": 1.5}, {"id": "event_2", "at": 2.5}
    with OrdersFile(path, new_authorizer()) as file:
        file.keep_cursor("workos", first)
        file.keep_cursor("workos", second)
        appended = lines_of(path)
    with OrdersFile(path, new_authorizer()) as file:
        read = file.cursors["workos"]
        for _ in range(2000):
            file.keep_cursor("workos", second)

    assert appended == [{"cursors": {"workos": first}}, {"cursors": {"workos": second}}]
    assert read == second
    # It was written anew meanwhile.
    assert len(lines_of(path)) < 1500
    with OrdersFile(path, new_authorizer()) as file:
        assert file.cursors["workos"] == second


def test_place_of_a_source_is_never_ahead_of_its_orders(path: Path, new_authorizer: NewAuthorizer) -> None:
    authorizer = new_authorizer()
    with OrdersFile(path, authorizer) as file:
        with room_for(path.stat().st_size), pytest.raises(NotKeptError):
            authorizer.suspend(org_id=ORG)
        with room_for(0), pytest.raises(NotKeptError):
            file.keep_cursor("workos", {"id": "event_1"})
        lost = dict(file.cursors)
        file.keep_cursor("workos", {"id": "event_1"})
        kept = lines_of(path)

    assert lost == {}
    assert [line.get("id") for line in kept[:-1]] == [ORG]
    assert kept[-1] == {"cursors": {"workos": {"id": "event_1"}}}
    with pytest.raises(NotKeptError):
        file.keep_cursor("workos", {"id": "event_2"})


def test_renewals_are_not_kept(path: Path, new_authorizer: NewAuthorizer) -> None:
    authorizer = new_authorizer()
    with OrdersFile(path, authorizer):
        authorizer.operator.carry_out([Order("renew", "organization", ORG, until=4e9, at=1)])
        authorizer.suspend(org_id=ORG)

    assert [line["verb"] for line in lines_of(path)] == ["suspend"]


def test_full_disk_harms_nothing_but_what_could_not_be_written(path: Path, new_authorizer: NewAuthorizer) -> None:
    authorizer = new_authorizer()
    with OrdersFile(path, authorizer):
        authorizer.suspend(org_id="org_first")
        before = path.read_bytes()
        with room_for(len(before) + 10), told("orders_not_kept") as events:
            with pytest.raises(
                NotKeptError, match=r"cannot be written \(File too large\); what was ordered is in force"
            ):
                authorizer.suspend(org_id=ORG)
            in_force = authorizer.standing.suspended_organizations
            torn = path.read_bytes()
        authorizer.suspend(org_id="org_last")
        after = [each["id"] for each in lines_of(path)]

    assert events[0]["file"] == str(path)
    assert in_force == {"org_first", ORG}
    assert torn[: len(before)] == before
    assert after == ["org_first", ORG, "org_last"]


def test_what_a_full_disk_cut_off_spoils_no_later_line(
    path: Path, new_authorizer: NewAuthorizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorizer = new_authorizer()
    with OrdersFile(path, authorizer):
        authorizer.suspend(org_id="org_first")
        with room_for(path.stat().st_size + 10), pytest.raises(NotKeptError):
            authorizer.suspend(org_id=ORG)
        # There is room for a line again, and none for all of them anew.
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", _no_room)
            authorizer.suspend(org_id="org_last")
        after = [each["id"] for each in lines_of(path)]

    assert after == ["org_first", "org_last"]
    assert [each["id"] for each in lines_of(path)] == ["org_first", ORG, "org_last"]


def _no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_a_full_disk_kept_out_is_written_at_the_end(path: Path, new_authorizer: NewAuthorizer) -> None:
    authorizer = new_authorizer()
    with OrdersFile(path, authorizer):
        with room_for(10), pytest.raises(NotKeptError):
            authorizer.suspend(org_id=ORG)
        # As a crash would leave it.
        assert path.read_bytes() == b'{"at":1800'

    assert [each["id"] for each in lines_of(path)] == [ORG]


def test_orders_from_elsewhere_go_on_while_the_disk_is_full(path: Path, new_authorizer: NewAuthorizer) -> None:
    authorizer = new_authorizer()
    with OrdersFile(path, authorizer), room_for(10), told("orders_not_kept"):
        authorizer.operator.carry_out([Order("suspend", "organization", ORG, at=1)])
        authorizer.operator.list_tokens([(" jti", 4e9)])

    assert authorizer.standing.suspended_organizations == {ORG}
    assert " jti" in authorizer.operator.book.tokens


def test_other_watchers_are_told_although_one_fails(path: Path, new_authorizer: NewAuthorizer) -> None:
    authorizer = new_authorizer()
    heard: list[Order] = []
    with OrdersFile(path, authorizer), room_for(10):
        authorizer.operator.watch(heard.extend)
        with pytest.raises(NotKeptError):
            authorizer.suspend(org_id=ORG)

    assert [order.id for order in heard] == [ORG]


def test_file_that_was_removed_or_replaced_is_written_anew(path: Path, new_authorizer: NewAuthorizer) -> None:
    authorizer = new_authorizer()
    with OrdersFile(path, authorizer):
        authorizer.suspend(org_id=ORG)
        path.unlink()
        authorizer.suspend(org_id="org_2")
        path.with_suffix(".other").write_text("")
        path.with_suffix(".other").rename(path)
        authorizer.suspend(org_id="org_3")

    assert [each["id"] for each in lines_of(path)] == [ORG, "org_2", "org_3"]


def test_two_servers_do_not_share_a_file(path: Path, new_authorizer: NewAuthorizer) -> None:
    with OrdersFile(path, new_authorizer()), pytest.raises(ConfigError, match="in use by another process"):
        restarted(path, new_authorizer())


def test_link_to_the_file_stays_a_link(path: Path, new_authorizer: NewAuthorizer) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    authorizer = new_authorizer()
    with OrdersFile(link, authorizer):
        authorizer.suspend(org_id=ORG)

    assert link.is_symlink()
    assert [each["id"] for each in lines_of(path)] == [ORG]


def test_folder_that_is_not_there_is_said(path: Path, new_authorizer: NewAuthorizer) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used \(No such file or directory\)"):
        restarted(path / "nowhere" / "orders", new_authorizer())


def test_age_is_that_of_the_last_word_of_the_store(
    path: Path, new_authorizer: NewAuthorizer, clock: ManualClock
) -> None:
    authorizer = new_authorizer()
    with OrdersFile(path, authorizer) as file:
        ages = [file.age(clock.now)]
        file.caught_up(clock.now)
        authorizer.suspend(org_id=ORG)
        clock.advance(90.0)
        ages.append(file.age(clock.now))
        clock.advance(-3600.0)
        ages.append(file.age(clock.now))
    with OrdersFile(path, new_authorizer()) as file:
        later = file.age(clock.now + 3600.0)

    # A time that is yet to come says nothing.
    assert ages == [None, 90.0, None]
    assert later == 90.0


def test_file_that_lacks_orders_is_not_up_to_date(
    path: Path, new_authorizer: NewAuthorizer, clock: ManualClock
) -> None:
    authorizer = new_authorizer()
    with OrdersFile(path, authorizer) as file:
        with room_for(10):
            authorizer.operator.carry_out([Order("suspend", "organization", ORG, at=1)])
        file.caught_up(clock.now)
        age = file.age(clock.now)

    assert age is None


def test_forked_child_leaves_the_file_to_its_parent(path: Path) -> None:
    program = f"""
import os
from authz import Authorizer, OrdersFile, Verifier
from authz.judge.orders.operator import NotKeptError

authorizer = Authorizer(Verifier(issuer="https://acme.authkit.app", audience="a"))
with OrdersFile({str(path)!r}, authorizer):
    child = os.fork()
    if child == 0:
        try:
            authorizer.suspend(org_id="org_child")
        except NotKeptError as error:
            print(error)
        print(authorizer.standing.suspended_organizations, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    authorizer.suspend(org_id="org_parent")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"orders: {str(path)!r} is written by the process from which this one was forked",
        "{'org_child'}",
    ]
    assert [each["id"] for each in lines_of(path)] == ["org_parent"]


def test_killed_at_any_moment_it_loses_no_order_that_was_answered(path: Path) -> None:
    program = f"""
import sys
from authz import Authorizer, OrdersFile, Verifier

authorizer = Authorizer(Verifier(issuer="https://acme.authkit.app", audience="a"))
with OrdersFile({str(path)!r}, authorizer):
    print("ready", flush=True)
    # Most are superseded, so that the file is written anew again and again.
    for number in range(1_000_000):
        authorizer.suspend(org_id=f"org_{{number % 300}}", reason=str(number))
        print(number, flush=True)
"""
    answered = -1
    for kill_after in (1, 700, 1650, 2300):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if line.strip().isdigit() and int(line) >= kill_after:
                        break
            finally:
                process.kill()
            answered = max((int(line) for line in process.stdout.read().split() if line.isdigit()), default=int(line))
        latest: dict[str, int] = {}
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        for text in whole.splitlines():
            order = json.loads(text)
            latest[order["id"]] = max(latest.get(order["id"], -1), int(order["reason"]), key=int)
        assert max(latest.values()) >= answered
        path.unlink()
