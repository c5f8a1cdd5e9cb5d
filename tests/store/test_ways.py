"""The ways to a store, besides a socket: TLS, and Sentinel that knows where the primary is."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from authz.store.connection import Store, StoreError
from authz.store.orders_store import OrdersStore
from tests.certificates import Authority, dns
from tests.programs import PATIENCE
from tests.store.engines import KINDS, Engine, binary, free_port
from tests.store.fleet import replicas, suspend, suspended, until


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    authority, other = Authority(), Authority()
    own = authority.issue(*dns("localhost"))
    contents = {"ca": authority.root, "other": other.root, "cert": own.chain, "key": own.key}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: str(tmp_path / name) for name in contents}


def test_the_way_is_secured_by_both_certificates(files: dict[str, str]) -> None:
    port = free_port()
    tls = ("--tls-port", str(port), "--tls-cert-file", files["cert"], "--tls-key-file", files["key"])
    url, own = f"rediss://localhost:{port}", {"cert_file": files["cert"], "key_file": files["key"]}
    # Only Debian's can do that.
    with Engine("redis", *tls, "--tls-ca-cert-file", files["ca"], "--tls-auth-clients", "yes"):
        until(lambda: _answers(url, ca_file=files["ca"], **own))
        with pytest.raises(StoreError, match=r"cannot be reached \(certificate\)"):
            Store(url, ca_file=files["other"], **own).check()
        with pytest.raises(StoreError, match="cannot be reached"):
            Store(url, ca_file=files["ca"]).check()
        with pytest.raises(StoreError, match=r"cannot be reached|does not answer"):
            Store(f"redis://localhost:{port}").check()


@pytest.fixture(params=KINDS)
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Engine, Engine, str]]:
    """Return a primary, its copy, and the URL of a Sentinel that watches them."""
    ports = [free_port() for _ in range(3)]
    with Engine(request.param, port=ports[0]) as primary, Engine(request.param, port=ports[1]) as copy:
        with copy.client() as asking:
            asking.execute_command("REPLICAOF", "127.0.0.1", str(ports[0]))
            until(lambda: asking.info("replication").get("master_link_status") == "up")
        lines = (
            f"port {ports[2]}",
            f"dir {tmp_path}",
            f"sentinel monitor main 127.0.0.1 {ports[0]} 1",
            "sentinel down-after-milliseconds main 500",
            "sentinel failover-timeout main 5000",
        )
        (tmp_path / "sentinel.conf").write_text("\n".join(lines))
        command = [binary(request.param), str(tmp_path / "sentinel.conf"), "--sentinel"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as sentinel:
            try:
                yield primary, copy, f"redis+sentinel://127.0.0.1:{ports[2]}/main"
            finally:
                sentinel.kill()
                sentinel.wait(PATIENCE)


def test_the_primary_is_found_by_sentinel_also_when_another_one_becomes_it(
    watched: tuple[Engine, Engine, str],
) -> None:
    primary, copy, url = watched
    until(lambda: _answers(url))
    with replicas(lambda: Store(url), 2) as found:
        OrdersStore(Store(url)).write([suspend("org_1")])
        until(lambda: all(suspended(judge) == {"org_1"} for judge, _ in found))
        until(lambda: _kept(copy) == 1)
        primary.kill()
        found[0][0].suspend(org_id="org_2")

        until(lambda: _kept(copy) == 2)
        until(lambda: all(suspended(judge) == {"org_1", "org_2"} for judge, _ in found))
        assert [shared.follower.regressed for _, shared in found] == [0, 0]


def test_a_sentinel_that_knows_no_such_primary_is_said_in_one_line(watched: tuple[Engine, Engine, str]) -> None:
    *_, url = watched
    until(lambda: _answers(url))

    with pytest.raises(StoreError) as raised:
        Store(url.replace("/main", "/other")).check()

    assert raised.value.reason == "unreachable"


def _kept(engine: Engine) -> int:
    # A server whose role changes parts with its clients.
    with engine.client() as asking, contextlib.suppress(redis.ConnectionError):
        return int(asking.hlen("authz:{orders}:state"))
    return 0


def _answers(url: str, **options: str) -> bool:
    store = Store(url, **options)
    try:
        store.check()
    except StoreError:
        return False
    finally:
        store.close()
    return True
