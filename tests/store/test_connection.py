"""How the store is reached, and what is said of one that cannot be used."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.errors import ConfigError
from authz.settings.settings import Settings
from authz.store.connection import REASONS, Script, Store, StoreError
from authz.store.orders_store import OrdersStore
from tests.certificates import Authority
from tests.loopback import Connection
from tests.store.engines import Engine, free_port
from tests.store.wire import Fake

SECRET = "correct-horse-battery"
ECHO = Script("return {KEYS[1], ARGV[1]}")

URLS = {
    "redis://127.0.0.1": "Redis",
    "redis://localhost:7000/3": "Redis",
    "redis://[::1]:7000": "Redis",
    "rediss://valkey.internal:6379": "Redis",
    "unix:/run/valkey.sock": "Redis",
    "unix:///run/valkey.sock": "Redis",
    "redis+sentinel://127.0.0.1,127.0.0.1:26380/mymaster": "Redis",
    "rediss+sentinel://a.internal,b.internal/mymaster": "Redis",
}
BAD = (
    *("", "redis:", "redis://", "redis:///3", "http://127.0.0.1", "127.0.0.1:6379", "unix:", "redis://127.0.0.1:0"),
    *("redis://127.0.0.1:x", "redis://127.0.0.1:70000", "redis://127.0.0.1/x", "redis://127.0.0.1/1/2", "redis://a b"),
    *("redis://127.0.0.1?db=3", "redis://127.0.0.1#x", "redis+sentinel://127.0.0.1", "redis+sentinel://127.0.0.1/a/b"),
    *(
        "redis+sentinel:///name",
        "redis+sentinel://127.0.0.1,/name",
        "redis://$HOST",
        "unix:/a?db=1",
        "REDIS://127.0.0.1",
    ),
    "redis+cluster://127.0.0.1",
)


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_understood(url: str) -> None:
    store = Store(url)

    assert type(store.client()).__name__ == URLS[url]
    assert repr(store) == f"Store({url!r})"


@pytest.mark.parametrize("url", BAD)
def test_what_is_no_url_of_a_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^store: "):
        Store(url)


@pytest.mark.parametrize("url", ["redis://:{}@127.0.0.1", "rediss://ops:{}@valkey.internal", "unix:{}@/x", "x{}@"])
def test_a_password_is_not_taken_in_the_url_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="store_password_file") as raised:
        Store(url.format(SECRET))

    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["redis://valkey.internal", "redis://10.0.0.1:6379", "redis+sentinel://127.0.0.1,10.0.0.1/mymaster"]
)
def test_nothing_goes_to_other_machines_in_plaintext_unless_told(url: str) -> None:
    with pytest.raises(ConfigError, match="without TLS; use rediss://, or set store_plaintext"):
        Store(url)

    Store(url, allow_plaintext=True)


@pytest.mark.parametrize("namespace", ["", "a b", "{a}", "a*", "é", "a\n"])
def test_a_namespace_that_would_match_others_is_refused(namespace: str) -> None:
    with pytest.raises(ConfigError, match="store_namespace"):
        Store("redis://127.0.0.1", namespace=namespace)


def test_certificates_belong_together_and_to_tls(tmp_path: Path) -> None:
    own = Authority().issue()
    (tmp_path / "tls.crt").write_bytes(own.chain)
    (tmp_path / "tls.key").write_bytes(own.key)
    files = {"cert_file": str(tmp_path / "tls.crt"), "key_file": str(tmp_path / "tls.key")}

    Store("rediss://valkey.internal", **files)
    with pytest.raises(ConfigError, match="rediss:// only"):
        Store("redis://127.0.0.1", **files)
    with pytest.raises(ConfigError, match="store_key_file"):
        Store("rediss://valkey.internal", cert_file=files["cert_file"])
    with pytest.raises(ConfigError, match=r"store_ca_file: .* cannot be read as PEM"):
        Store("rediss://valkey.internal", ca_file=str(tmp_path / "missing"))


def test_the_settings_name_the_store(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    settings = {"issuer": "https://acme.authkit.app", "audience": ["a"]}

    assert Store.of(Settings.load(**settings)) is None
    store = Store.of(
        Settings.load(
            **settings,
            store="redis://127.0.0.1:7000",
            store_namespace="staging",
            store_username="server",
            store_password_file=str(tmp_path / "password"),
        )
    )

    assert store is not None
    assert store.key("x") == "staging:x"
    kwargs = store.client().connection_pool.connection_kwargs
    assert (kwargs["username"], kwargs["password"], kwargs["port"]) == ("server", SECRET, 7000)


def test_a_script_runs_also_after_the_server_forgot_it(engine: Engine) -> None:
    store = engine.store()
    assert store.call(ECHO, ["authz:a"], [b"x"]) == [b"authz:a", b"x"]
    engine.kill()
    engine.start()

    assert store.call(ECHO, ["authz:a"], [b"y"]) == [b"authz:a", b"y"]
    store.close()


def test_a_server_that_hangs_is_noticed_in_time(engine: Engine) -> None:
    orders = OrdersStore(engine.store(timeout=0.3))
    orders.read("0-0", 0.1)
    engine.hang()

    began = time.monotonic()
    with pytest.raises(StoreError) as raised:
        orders.read("0-0", 0.2)
    engine.go_on()

    assert raised.value.reason == "timeout"
    # Tried once: the time for an answer, and the time to wait.
    assert 0.4 < time.monotonic() - began < 5


def reason_and_line(store: Store) -> tuple[str, str]:
    with pytest.raises(StoreError) as raised:
        store.check()
    line = str(raised.value)
    assert "\n" not in line
    assert raised.value.remedy in line
    # What a server says is shown nowhere.
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    return raised.value.reason, line


def test_nothing_that_listens_is_said_in_one_line() -> None:
    reason, line = reason_and_line(Store(f"redis://127.0.0.1:{free_port()}"))

    assert (reason, "(refused)" in line, "127.0.0.1" in line) == ("unreachable", True, True)


def test_a_name_that_is_none_is_said_in_one_line() -> None:
    reason, line = reason_and_line(Store("redis://valkey.invalid", allow_plaintext=True, timeout=20))

    assert (reason, "(name)" in line) == ("unreachable", True)


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_wrong_password_is_said_in_one_line(engine: Engine, password: str | None) -> None:
    with engine.client() as asking:
        asking.config_set("requirepass", SECRET)

    reason, line = reason_and_line(engine.store(password=password))

    assert (reason, "store_password_file" in line) == ("denied", True)
    engine.store(password=SECRET).check()


def test_a_user_who_may_not_is_said_in_one_line(engine: Engine) -> None:
    with engine.client() as asking:
        asking.execute_command("ACL", "SETUSER", "weak", "on", f">{SECRET}", "+info", "~none")

    reason, line = reason_and_line(engine.store(username="weak", password=SECRET))

    assert (reason, SECRET in line, "ACL" in line) == ("denied", False, True)


def test_a_read_only_replica_is_said_in_one_line(engine: Engine) -> None:
    with engine.client() as asking:
        asking.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))

    reason, _ = reason_and_line(engine.store())

    assert reason == "readonly"
    with pytest.raises(StoreError) as raised:
        OrdersStore(engine.store()).write([])
    assert raised.value.reason == "readonly"


def test_a_full_store_is_said_in_one_line(engine: Engine) -> None:
    with engine.client() as asking:
        asking.config_set("maxmemory", "100kb")

    reason, line = reason_and_line(engine.store())

    assert (reason, "maxmemory" in line) == ("full", True)
    with pytest.raises(StoreError) as raised:
        OrdersStore(engine.store()).write([])
    assert raised.value.reason == "full"


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_store_that_may_throw_orders_away_is_refused(engine: Engine, policy: str) -> None:
    with engine.client() as asking:
        asking.config_set("maxmemory-policy", policy)

    assert reason_and_line(engine.store())[0] == "eviction"


@pytest.mark.parametrize("policy", ["noeviction", "volatile-ttl"])
def test_a_store_that_throws_away_only_what_ends_is_not(engine: Engine, policy: str) -> None:
    with engine.client() as asking:
        asking.config_set("maxmemory-policy", policy)

    engine.store().check()


def test_names_that_something_else_has_are_said_in_one_line(engine: Engine) -> None:
    with engine.client() as asking:
        asking.lpush("authz:{orders}:epoch", "x")

    assert reason_and_line(engine.store())[0] == "format"


def of_info(*lines: str) -> Callable[[Connection], None]:
    text = "\r\n".join(lines)
    return lambda connection: connection.send(f"${len(text)}\r\n{text}\r\n".encode())


FAKES: dict[str, tuple[Callable[[Connection], None], str]] = {
    "too old": (of_info("redis_version:6.2.14", "role:master"), "version"),
    "loading": (of_info("redis_version:7.2.4", "loading:1"), "loading"),
    "says nothing of itself": (of_info("# Server"), "protocol"),
    "says nonsense": (of_info("redis_version:seven"), "protocol"),
    "knows no INFO": (lambda connection: connection.send(b"-ERR unknown command 'INFO'\r\n"), "protocol"),
    "is busy": (lambda connection: connection.send(b"-LOADING Redis is loading the dataset\r\n"), "loading"),
    "speaks HTTP": (lambda connection: connection.answer(b"hello"), "protocol"),
    "breaks off": (lambda connection: connection.reset(), "unreachable"),
}


@pytest.mark.parametrize("fake", FAKES)
def test_what_is_no_store_is_said_in_one_line(fake: str) -> None:
    serve, expected = FAKES[fake]
    with Fake(serve) as fake_server:
        assert reason_and_line(Store(f"redis://127.0.0.1:{fake_server.port}"))[0] == expected


def test_a_store_that_was_closed_is_asked_again_when_it_is_needed(engine: Engine) -> None:
    store = engine.store()
    store.check()
    store.close()
    store.check()
    store.close()


def test_every_reason_has_its_remedy() -> None:
    assert len({StoreError(reason, "unix:/x").remedy for reason in REASONS}) == len(REASONS)
