"""Policies follow their files, whatever way those change; what cannot be used changes nothing."""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authz import Authorizer, ConfigError, Policy, PolicyReloader, Verifier
from authz.demo.v1 import ledger_pb2 as pb
from authz.judge.configured import authorizer_of
from authz.judge.reload import Source
from authz.runtime.watch import Files, Watch, note, noting
from authz.server import policy_files
from authz.settings.settings import Settings
from tests.doubles import AUDIENCE, ISSUER, PATIENCE, eventually
from tests.marked import descriptor_set, service_file, with_imports

ASKING = {"scopes": ["admin"]}


def text(name: str) -> str:
    return f"name: {name}\nallow_rules:\n- name: all\n"


def replace(path: Path, content: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(content)
    new.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(text("first"))
    return path


@pytest.fixture
def authorizer(verifier: Verifier) -> Authorizer:
    return Authorizer(verifier)


@pytest.fixture
def reloader(authorizer: Authorizer, path: Path) -> Iterator[PolicyReloader]:
    with PolicyReloader(authorizer, path) as reloader:
        yield reloader


@pytest.fixture
def in_force(authorizer: Authorizer) -> Callable[[str], bool]:
    """Return a function that waits until the policy of a name is in force."""
    return lambda name: eventually(lambda: authorizer.policy is not None and authorizer.policy.name == name)


def test_policy_that_wants_to_exit_when_it_is_loaded_is_a_failed_reload(authorizer: Authorizer, path: Path) -> None:
    def load() -> Policy:
        if "bad" in path.read_text():
            sys.exit("bad")
        return Policy.from_file(path)

    with PolicyReloader(authorizer, path, load=load) as reloader:
        replace(path, "bad")
        assert eventually(lambda: reloader.is_failing)
        replace(path, text("second"))

        assert eventually(lambda: not reloader.is_failing)
    assert authorizer.policy is not None
    assert (authorizer.policy.name, reloader.results) == ("second", {"failed": 1, "ok": 1})


def test_watch_that_dies_is_begun_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen, is_dead = threading.Event(), threading.Event()

    def changed(_files: Files) -> None:
        if not is_dead.is_set():
            is_dead.set()
            raise SystemExit
        seen.set()

    watch = Watch([Files([path])], changed)
    watch.start()
    try:
        replace(path, text("second"))
        assert is_dead.wait(PATIENCE)
        assert eventually(lambda: "thread_died thread='authz-watch'" in caplog.text)
        replace(path, text("third"))
        assert seen.wait(PATIENCE)
    finally:
        watch.stop()


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[Any]:
    return [record.fields for record in caplog.records if getattr(record, "event", "") == name]


# ---- Ways to change ----


@pytest.mark.parametrize("change", [Path.write_text, replace], ids=["edited", "replaced"])
def test_changed_file_is_in_force(
    reloader: PolicyReloader, in_force: Callable[[str], bool], path: Path, change: Callable[[Path, str], object]
) -> None:
    assert in_force("first")
    for name in ("second", "third"):
        change(path, text(name))
        assert in_force(name)
    assert not reloader.is_failing


def test_volume_of_kubernetes_is_followed(
    authorizer: Authorizer, in_force: Callable[[str], bool], tmp_path: Path
) -> None:
    """The kubelet puts each version into a folder of its own, and has one link point from the old to the new."""
    volume = tmp_path / "volume"

    def publish(name: str) -> None:
        version, link = volume / f"..{name}", volume / "..data_tmp"
        version.mkdir(parents=True)
        (version / "policy.yaml").write_text(text(name))
        link.symlink_to(version.name)
        link.replace(volume / "..data")

    publish("first")
    (volume / "policy.yaml").symlink_to(Path("..data") / "policy.yaml")
    # Where somebody points to it from elsewhere, that is followed, too.
    (tmp_path / "mounted").symlink_to("volume")
    with PolicyReloader(authorizer, tmp_path / "mounted" / "policy.yaml"):
        for name in ("second", "third"):
            publish(name)
            assert in_force(name)


def test_folder_that_is_made_anew_is_followed(
    authorizer: Authorizer, in_force: Callable[[str], bool], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    with_policy = folder / "policy.yaml"
    folder.mkdir()
    with_policy.write_text(text("first"))
    with PolicyReloader(authorizer, with_policy) as reloader:
        shutil.rmtree(folder)
        assert eventually(lambda: reloader.is_failing)
        folder.mkdir()
        with_policy.write_text(text("second"))
        assert in_force("second")
        replace(with_policy, text("third"))
        assert in_force("third")


class Unwatchable(Files):
    def folders(self) -> set[str]:
        raise OSError("the machine has no more watches")


def test_file_that_cannot_be_watched_is_looked_at_all_the_same(path: Path) -> None:
    seen = threading.Event()
    watch = Watch([Unwatchable([path])], lambda _: seen.set())
    watch.start()
    path.write_text(text("second"))

    assert seen.wait(PATIENCE)
    watch.stop()


class At:
    """A time: so many milliseconds after a file has changed."""

    def __init__(self, path: Path) -> None:
        self._path, self.milliseconds = path, 99

    def __call__(self) -> int:
        return self._path.stat().st_ctime_ns + self.milliseconds * 1_000_000


def test_file_is_left_alone_until_nobody_has_written_for_a_while(path: Path) -> None:
    now = At(path)
    files = Files([path], now)
    path.write_text(text("second"))
    early = files.have_changed(), files.are_fresh()
    now.milliseconds += 1

    assert (early, files.have_changed(), files.are_fresh()) == ((False, True), True, False)


def test_second_change_in_one_tick_of_the_clock_is_seen(path: Path) -> None:
    """As many letters as before, so that only their digest tells."""
    now = At(path)
    files = Files([path], now)
    path.write_text(text("tsrif"))
    now.milliseconds += 1

    assert (files.have_changed(), files.have_changed()) == (True, False)


def test_folders_of_all_links_are_watched(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "to").symlink_to("../b/back")
    (tmp_path / "b" / "back").symlink_to(tmp_path / "c")
    (tmp_path / "b" / "loop").symlink_to("loop")
    found = {f"{tmp_path}/{folder}" for folder in ("a", "b", "c")}

    assert Files([tmp_path / "a" / "to" / "policy.yaml"]).folders() == found
    assert Files([tmp_path / "b" / "loop"]).folders() == {f"{tmp_path}/b"}
    assert Files([tmp_path / "c" / "not" / "yet" / "there"]).folders() == {f"{tmp_path}/c"}


# ---- What cannot be used ----


def test_bad_file_keeps_the_last_good_one_and_is_told_by_its_line(
    reloader: PolicyReloader,
    authorizer: Authorizer,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "authz")
    path.write_text(text("bad").replace("allow_rules", "allow_rulez"))
    assert eventually(lambda: reloader.is_failing)
    during = authorizer.policy
    path.write_text(text("first"))
    assert eventually(lambda: not reloader.is_failing)

    assert during is not None
    assert during.name == "first"
    [failed] = events(caplog, "policy_reload_failed")
    assert failed["error"].startswith(f"{path}:2: unknown key 'allow_rulez'")
    [told] = events(caplog, "policy_reloaded")
    assert (told["policy"], told["rules"], told["organizations"]) == ("first", 1, 0)
    assert reloader.results == {"failed": 1, "ok": 1}


def test_deleted_file_keeps_the_last_good_one_until_it_is_back(
    reloader: PolicyReloader, in_force: Callable[[str], bool], path: Path
) -> None:
    path.unlink()
    assert eventually(lambda: reloader.is_failing)
    assert in_force("first")
    path.write_text(text("second"))

    assert in_force("second")
    assert eventually(lambda: not reloader.is_failing)


def test_policy_that_cannot_work_here_keeps_the_last_good_one(
    reloader: PolicyReloader, in_force: Callable[[str], bool], path: Path
) -> None:
    path.write_text(text("second") + "introspect: {'*': {}}\n")

    assert eventually(lambda: reloader.is_failing)
    assert in_force("first")


def test_bad_file_at_the_beginning_is_an_error(authorizer: Authorizer, path: Path) -> None:
    path.write_text("nonsense")

    with pytest.raises(ConfigError, match=r"policy\.yaml"), PolicyReloader(authorizer, path):
        pass


def test_what_nobody_foresaw_is_a_failure_and_the_next_change_counts(
    authorizer: Authorizer, in_force: Callable[[str], bool], path: Path
) -> None:
    def load() -> Policy:
        if "second" in path.read_text():
            raise MemoryError
        return Policy.from_file(path)

    with PolicyReloader(authorizer, path, load=load) as reloader:
        path.write_text(text("second"))
        assert eventually(lambda: reloader.is_failing)
        path.write_text(text("third"))
        assert in_force("third")


# ---- What is no change ----


def test_file_that_says_the_same_again_changes_nothing(
    reloader: PolicyReloader, in_force: Callable[[str], bool], path: Path
) -> None:
    replace(path, text("first"))
    path.touch()
    replace(path, text("second"))

    assert in_force("second")
    assert eventually(lambda: reloader.results == {"ok": 1})


def test_file_that_changes_while_it_is_read_is_not_put_in_force(path: Path) -> None:
    put: list[str] = []

    def load() -> tuple[Policy, Callable[[], object]]:
        policy = Policy.from_file(path)
        if policy.name == "first":
            path.write_text(text("second"))
        return policy, lambda: put.append(policy.name)

    source = Source("policy", Files([path]), load)
    done = [source.reload(), eventually(source.files.have_changed), source.reload()]

    assert (done, put) == ([False, True, True], ["second"])


# ---- What belongs together ----


def test_shadow_follows_its_file(authorizer: Authorizer, path: Path, tmp_path: Path) -> None:
    shadow = tmp_path / "next.yaml"
    shadow.write_text(text("next"))
    with PolicyReloader(authorizer, path, shadow=shadow) as reloader:
        shadow.write_text("nonsense")
        assert eventually(lambda: reloader.is_failing)
        kept = authorizer.shadow.policy
        shadow.write_text(text("after-next"))
        assert eventually(lambda: authorizer.shadow.policy is not kept)

    assert kept is not None
    assert kept.name == "next"
    assert authorizer.policy is not None
    assert authorizer.policy.name == "first"


def test_several_files_need_to_be_told_apart(authorizer: Authorizer, path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^files: "):
        PolicyReloader(authorizer, path, path)


WITHOUT_WATCHFILES = """\
import sys
sys.modules["watchfiles"] = None
from authz import Authorizer, PolicyReloader, Verifier
try:
    PolicyReloader(Authorizer(Verifier(issuer="https://a.example", audience="a")), "policy.json")
except ValueError as error:
    print(error)
"""


def test_missing_extra_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_WATCHFILES]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)

    assert result.stdout == "reload: it needs the extra 'policy': pip install 'grpc-org-authz[policy]'\n"


@pytest.fixture
def settings(tmp_path: Path, path: Path) -> Settings:
    descriptors = tmp_path / "api.binpb"
    descriptors.write_bytes(descriptor_set(pb.DESCRIPTOR))
    ours = {"introspection_client_id": "client", "introspection_client_secret": "secret"}
    return Settings.load(issuer=ISSUER, audience=AUDIENCE, **ours, policy=str(path), descriptors=str(descriptors))


def test_descriptor_set_is_put_in_force_with_the_policy(settings: Settings, path: Path) -> None:
    assert settings.descriptors is not None
    descriptors = Path(settings.descriptors)
    files, authorizer = policy_files.files(settings), authorizer_of(settings)
    before = policy_files.isolation(settings)
    authorizer.replace_policy(authorizer.policy, isolation=before)
    reloader = policy_files.reloader(settings, files, authorizer, None)
    assert reloader is not None
    with reloader:
        descriptors.write_bytes(b"nonsense")
        path.write_text(text("second"))
        assert eventually(lambda: reloader.is_failing)
        during = authorizer.in_force.now.isolation, authorizer.policy
        descriptors.write_bytes(descriptor_set(pb.DESCRIPTOR))
        assert eventually(lambda: not reloader.is_failing)

    assert during[0] is before
    assert during[1] is not None
    assert during[1].name == "first"
    assert authorizer.in_force.now.isolation is not before
    assert authorizer.policy is not None
    assert authorizer.policy.name == "second"
    authorizer.close()


@pytest.mark.parametrize("with_file", [True, False])
@pytest.mark.parametrize(
    ("access", "request_type"), [(None, ".tests.Order"), (ASKING, ".tests.Plain")], ids=["no access", "no marks"]
)
def test_descriptor_set_that_has_lost_its_options_opens_nothing(
    settings: Settings, access: dict[str, Any] | None, request_type: str, *, with_file: bool
) -> None:
    assert settings.descriptors is not None
    descriptors, ours = (
        Path(settings.descriptors),
        settings if with_file else settings.model_copy(update={"policy": None}),
    )
    descriptors.write_bytes(with_imports(service_file({"Call": ASKING}, request=".tests.Order")))
    files, authorizer = policy_files.files(ours), authorizer_of(ours)
    authorizer.replace_policy(authorizer.policy, isolation=policy_files.isolation(ours))
    before = authorizer.policy, authorizer.in_force.now.isolation
    reloader = policy_files.reloader(ours, files, authorizer, None)
    assert reloader is not None
    with reloader:
        descriptors.write_bytes(with_imports(service_file({"Call": access}, request=request_type)))
        assert eventually(lambda: reloader.is_failing)

    assert before[0] is not None
    assert (authorizer.policy, authorizer.in_force.now.isolation) == before
    authorizer.close()


# ---- Organizations in a file of their own ----


def naming(name: str, file: str = "orgs.jsonl") -> str:
    return f"{text(name)}organizations_file: {file}\n"


def line(org_id: str, tenant: str) -> str:
    return f'{{"id": "{org_id}", "tenant": "{tenant}"}}\n'


@pytest.fixture
def orgs(path: Path) -> Path:
    """Have the policy name a file of organizations, and return it."""
    orgs = path.with_name("orgs.jsonl")
    orgs.write_text(line("org_a", "first"))
    path.write_text(naming("first"))
    return orgs


@pytest.fixture
def tenant(authorizer: Authorizer) -> Callable[[str], bool]:
    """Return a function that waits until the organization has a tenant."""

    def tenant(name: str) -> bool:
        return eventually(
            lambda: authorizer.policy is not None and authorizer.policy.organization("org_a").tenant == name
        )

    return tenant


def test_file_that_the_policy_names_is_followed_too(
    orgs: Path, reloader: PolicyReloader, tenant: Callable[[str], bool]
) -> None:
    began = tenant("first")
    replace(orgs, line("org_a", "second"))
    replaced = tenant("second")
    orgs.write_text(line("org_a", "third"))

    assert began
    assert replaced
    assert tenant("third")
    assert reloader.results["failed"] == 0


def test_wrong_line_keeps_the_last_good_file_until_it_is_put_right(
    orgs: Path, reloader: PolicyReloader, tenant: Callable[[str], bool], caplog: pytest.LogCaptureFixture
) -> None:
    replace(orgs, line("org_a", "second") + line("org_a", "third"))
    assert eventually(lambda: reloader.is_failing)
    assert tenant("first")
    replace(orgs, line("org_a", "fourth"))

    assert tenant("fourth")
    assert eventually(lambda: not reloader.is_failing)
    [failed] = events(caplog, "policy_reload_failed")
    assert failed["error"] == f"{orgs}:2: id: 'org_a' is listed twice"


def test_file_that_is_named_before_it_is_there_is_waited_for(
    orgs: Path, reloader: PolicyReloader, in_force: Callable[[str], bool], path: Path
) -> None:
    replace(path, naming("second", "later/orgs.jsonl"))
    assert eventually(lambda: reloader.is_failing)
    assert in_force("first")
    later = path.parent / "later"
    later.mkdir()
    orgs.rename(later / orgs.name)

    assert in_force("second")


def test_file_that_is_named_no_more_is_not_followed(
    orgs: Path, reloader: PolicyReloader, in_force: Callable[[str], bool], path: Path
) -> None:
    replace(path, text("second"))
    assert in_force("second")
    orgs.write_text("nonsense")
    replace(path, text("third"))

    assert in_force("third")
    assert eventually(lambda: reloader.results == {"ok": 2})


@pytest.mark.parametrize("is_good", [True, False], ids=["good", "wrong"])
def test_file_that_changes_while_organizations_are_read_is_read_again(path: Path, orgs: Path, *, is_good: bool) -> None:
    put: list[str] = []

    def load() -> tuple[Policy, Callable[[], object]]:
        policy = Policy.from_file(path)
        tenant = policy.organization("org_a").tenant
        if tenant == "first":
            replace(orgs, line("org_a", "second"))
            if not is_good:
                raise ConfigError("torn")
        return policy, lambda: put.append(tenant)

    source = Source("policy", Files([path]), load)
    done = [source.reload(), eventually(source.files.have_changed), source.reload()]

    assert (done, put) == ([False, True, True], ["second"])


def test_files_that_change_whenever_they_are_read_are_a_failed_reload_until_they_rest(path: Path, orgs: Path) -> None:
    """Such as a list that is written more often than it can be read: the operator must learn that it does not count."""
    put: list[str] = []

    def load() -> tuple[Policy, Callable[[], object]]:
        policy = Policy.from_file(path)
        if is_busy:
            replace(orgs, line("org_a", str(len(is_busy))))
            is_busy.append(True)
        return policy, lambda: put.append(policy.organization("org_a").tenant)

    is_busy = [True]
    source = Source("policy", Files([path]), load)
    done = [source.reload() for _ in range(4)]
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^policy: its files change again and again while they are read"):
            source.reload()
    last = str(len(is_busy) - 1)
    is_busy.clear()

    assert eventually(source.files.have_changed)
    assert source.reload()
    assert (done, put) == ([False] * 4, [last])


def test_pipe_in_the_place_of_a_file_is_not_waited_for_nor_read(orgs: Path) -> None:
    orgs.unlink()
    os.mkfifo(orgs)

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            orgs.write_bytes(b"x")

    writer = threading.Thread(target=write)
    writer.start()
    with noting() as noted:
        note(str(orgs))
    # It waits for a reader.
    os.close(os.open(orgs, os.O_RDONLY | os.O_NONBLOCK))
    writer.join()

    assert [each.digest for each in noted] == [None]


def test_file_too_large_to_be_used_is_not_read_to_compare_it(orgs: Path) -> None:
    with orgs.open("ab") as file:
        file.truncate(2**30 + 1)
    with noting() as noted:
        note(str(orgs))

    assert [each.digest for each in noted] == [None]


def test_change_that_was_not_put_in_force_counts_though_the_next_look_finds_the_same(path: Path) -> None:
    put: list[str] = []

    def load() -> tuple[Policy, Callable[[], object]]:
        policy = Policy.from_file(path)
        if not touched:
            touched.append(True)
            replace(path, text("first"))
        return policy, lambda: put.append(policy.name)

    touched: list[bool] = []
    source = Source("policy", Files([path]), load)
    done = [source.reload(), eventually(source.files.have_changed), source.reload()]

    assert (done, put) == ([False, True, True], ["first"])


def test_server_follows_the_file_that_its_policy_named_at_the_start(settings: Settings, orgs: Path) -> None:
    files = policy_files.files(settings)
    with noting() as noted:
        authorizer = authorizer_of(settings)
    files.follow(noted)
    reloader = policy_files.reloader(settings, files, authorizer, None)
    assert reloader is not None
    with reloader:
        replace(orgs, line("org_a", "second"))

        assert eventually(
            lambda: authorizer.policy is not None and authorizer.policy.organization("org_a").tenant == "second"
        )
    authorizer.close()
