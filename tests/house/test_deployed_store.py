"""The store that is deployed: it starts as its files say, on each engine, and lets its two users do what they must."""

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from authz.decisions.usage import Row
from authz.decisions.usage_report import Query
from authz.judge.orders.order import Order
from authz.store.connection import Store, StoreError
from authz.store.orders_store import OrdersStore
from authz.store.replicas import Heartbeat, Replicas
from authz.store.usage import UsageStore
from tests.certificates import Authority
from tests.doubles import eventually
from tests.house.test_deploy import (
    COMPOSE,
    ROOT,
    SHARED,
    SIDECAR,
    STORE,
    containers,
    environment,
    envoy_command,
    kustomization,
    pod,
    resource,
)
from tests.house.test_image import instruction
from tests.programs import run
from tests.store.engines import KINDS, binary, free_port

SERVER, SOURCE, OPERATOR = "authz-server", "authz-source", "authz-operator"
PASSWORDS = {SERVER: "server's own & /", SOURCE: "source-1", OPERATOR: "operator-1"}
SUSPEND = Order("suspend", "organization", "org_1")


@contextmanager
def started(kind: str, *options: str, users: Collection[str] = tuple(PASSWORDS)) -> Iterator[Path]:
    """Run a store by ``start.sh``, with the files of the deployment, and yield its folder once its log says so."""
    # Short, for the path of a socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="store-") as name:
        folder = Path(name)
        (folder / "valkey-server").symlink_to(binary(kind))
        for user in users:
            (folder / f"{user.removeprefix('authz-')}-password").write_text(f"{PASSWORDS[user]}\n")
        variables = {"CONFIGURATION": str(STORE), "PASSWORDS": name, "TMPDIR": name}
        path = {"PATH": f"{name}:{os.environ['PATH']}"}
        command = ["sh", STORE / "start.sh", *(option.replace("FOLDER", name) for option in options)]
        log = folder / "log"
        with log.open("wb") as file:
            server = subprocess.Popen(command, env={**os.environ, **path, **variables}, stdout=file, stderr=file)
        try:
            assert eventually(lambda: "eady to accept connections" in log.read_text()), log.read_text()
            yield folder
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="module", params=KINDS)
def socket(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return the socket of a store that is deployed."""
    with started(request.param, "--dir", "FOLDER", "--port", "0", "--unixsocket", "FOLDER/socket") as folder:
        yield folder / "socket"


@pytest.fixture
def store_of(socket: Path) -> Iterator[Callable[[str], Store]]:
    """Return a function that gives the store as one of its users sees it."""
    stores: list[Store] = []

    def of(user: str) -> Store:
        stores.append(Store(f"unix:{socket}", username=user, password=PASSWORDS[user]))
        return stores[-1]

    yield of
    for store in stores:
        store.close()


def test_store_is_one_that_can_be_used(store_of: Callable[[str], Store]) -> None:
    for user in PASSWORDS:
        store_of(user).check()


def test_operator_gives_orders_and_the_server_reads_them(store_of: Callable[[str], Store]) -> None:
    last = OrdersStore(store_of(OPERATOR)).write([SUSPEND])
    book, position = OrdersStore(store_of(SERVER)).load()

    assert [order._replace(at=0) for order in book] == [SUSPEND]
    assert position == last


def test_source_gives_orders_and_the_server_reads_them(store_of: Callable[[str], Store]) -> None:
    OrdersStore(store_of(SOURCE)).restore([SUSPEND._replace(id="org_2", at=1)])

    assert "org_2" in {order.id for order in OrdersStore(store_of(SERVER)).load()[0]}


def test_without_its_password_there_is_no_user_of_sources() -> None:
    options = ("--dir", "FOLDER", "--port", "0", "--unixsocket", "FOLDER/socket")
    with started("valkey", *options, users=(SERVER, OPERATOR)) as folder:
        kept = (folder / "users.acl").read_text()
        Store(f"unix:{folder}/socket", username=SERVER, password=PASSWORDS[SERVER]).check()

    assert SOURCE not in kept


def test_server_gives_no_orders(store_of: Callable[[str], Store]) -> None:
    with pytest.raises(StoreError, match="refuses the user, the password or a command"):
        OrdersStore(store_of(SERVER)).write([SUSPEND])


def test_server_says_that_it_is_there_and_what_it_counts_and_the_operator_reads_it(
    store_of: Callable[[str], Store],
) -> None:
    server, operator, now = store_of(SERVER), store_of(OPERATOR), time.time()
    Heartbeat(server, lambda: {"host": "pod-1"}).work()
    UsageStore(server).add("pod-1", 1, {Row(int(now), "org_1", "client_1", "/a.B/C", "allowed", "envoy"): 3})
    report = UsageStore(operator).read(Query(("organization", "method"), now - 3600, now + 1), now)

    assert [replica.host for replica in Replicas(operator).all()] == ["pod-1"]
    assert list(report.lines()) == [("org_1", "/a.B/C", 3, 3, 0)]


def test_without_a_password_there_is_no_way_in(socket: Path) -> None:
    with redis.Redis(unix_socket_path=str(socket)) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_passwords_are_kept_as_hashes(socket: Path) -> None:
    kept = (socket.parent / "users.acl").read_text()

    assert len(re.findall(r"^user authz-\w+ on #[0-9a-f]{64} ", kept, re.MULTILINE)) == len(PASSWORDS)
    assert not any(password in kept for password in PASSWORDS.values())


def test_store_evicts_nothing_and_keeps_a_file(socket: Path) -> None:
    del socket
    lines = (STORE / "valkey.conf").read_text(encoding="utf-8").splitlines()

    assert {"maxmemory-policy noeviction", "appendonly yes"} <= set(lines)


# ---- Kubernetes and Compose ----


def test_pod_serves_tls_alone(tmp_path: Path) -> None:
    """On Redis, as the Valkey of the wheel has no TLS."""
    authority = Authority()
    server = authority.issue_for_loopback()
    for name, content in (("tls.crt", server.chain), ("tls.key", server.key), ("ca.crt", authority.root)):
        (tmp_path / name).write_bytes(content)
    [container] = pod(STORE)["spec"]["containers"]
    port = str(free_port())
    changes = {"/data": "FOLDER", "/etc/authz-store-tls": str(tmp_path), "6379": port}
    options = [re.sub("|".join(changes), lambda found: changes[found[0]], option) for option in container["args"]]
    with started("redis", *options):
        stores = [
            Store(f"{scheme}://127.0.0.1:{port}", username=SERVER, password=PASSWORDS[SERVER], **more)
            for scheme, more in (("rediss", {"ca_file": str(tmp_path / "ca.crt")}), ("redis", {}))
        ]
        stores[0].check()
        with pytest.raises(StoreError):
            stores[1].check()
        for store in stores:
            store.close()


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))
    return found


def test_pod_of_the_store_has_twice_its_memory() -> None:
    [megabytes] = re.findall(r"^maxmemory (\d+)mb$", (STORE / "valkey.conf").read_text(encoding="utf-8"), re.MULTILINE)
    [container] = pod(STORE)["spec"]["containers"]

    assert container["resources"]["limits"]["memory"] == f"{2 * int(megabytes)}Mi"


def test_only_authz_reaches_the_store_which_asks_nobody() -> None:
    policy = resource(STORE, "NetworkPolicy")["spec"]
    [rule] = policy["ingress"]

    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["egress"] == []
    assert [source["podSelector"]["matchLabels"] for source in rule["from"]] == [pod(SHARED)["metadata"]["labels"]]


def test_pods_may_reach_the_store_and_have_only_the_password_of_a_server() -> None:
    egress = resource(SHARED, "NetworkPolicy")["spec"]["egress"]
    targets = [target.get("podSelector", {}).get("matchLabels") for rule in egress for target in rule.get("to", ())]
    [secret] = [volume["secret"] for volume in pod(SHARED)["spec"]["volumes"] if volume["name"] == "store"]

    assert pod(STORE)["metadata"]["labels"] in targets
    assert [item["key"] for item in secret["items"]] == ["server-password"]


def test_compose_has_the_images_of_kubernetes() -> None:
    images = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in kustomization(STORE)["images"]}
    images |= {image["name"]: f"{image['newName']}:{image['newTag']}" for image in kustomization(SHARED)["images"]}
    services = compose()["services"]

    assert services["store"]["image"] == images["valkey"]
    assert {services[name]["image"] for name in ("authz", "ledger", "operator")} == {images["authz"]}
    assert services["envoy"]["image"] == containers(SIDECAR)["envoy"]["image"]


def test_containers_of_compose_are_hardened_and_refer_to_what_exists() -> None:
    found = compose()
    for service in found["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert set(service["networks"]) <= set(found["networks"])
        assert set(service.get("secrets", ())) <= set(found["secrets"])
    assert found["networks"]["store"] == {"internal": True}
    assert (COMPOSE / found["services"]["store"]["volumes"][0].partition(":")[0]).resolve() == STORE
    # What others reach is Envoy, on this machine.
    ports = {name: service["ports"] for name, service in found["services"].items() if "ports" in service}
    assert ports == {"envoy": ["127.0.0.1:10000:10000"]}
    mounted = [v.split(":") for service in found["services"].values() for v in service.get("volumes", [])]
    assert all((COMPOSE / source).exists() for source, *_ in mounted if source.startswith("."))


def test_envoy_of_compose_reaches_both_and_nothing_else_reaches_them() -> None:
    services = compose()["services"]
    networks = {name: set(services[name]["networks"]) for name in ("envoy", "authz", "ledger", "store")}
    assert networks["envoy"] == {"callers", "backends"}
    assert (networks["authz"], networks["ledger"]) == ({"callers", "store"}, {"backends"})
    command = envoy_command(COMPOSE)
    named = [command[command.index(option) + 1] for option in ("--authz", "--upstream")]
    assert named == ["authz:9191", f"ledger:{services['ledger']['environment']['LISTEN'].rpartition(':')[2]}"]


def test_backend_of_compose_believes_whom_authz_believes() -> None:
    server, backend = environment(COMPOSE / "settings.env"), compose()["services"]["ledger"]["environment"]
    assert all(server[name] == backend[name] for name in ("AUTHZ_ISSUER", "AUTHZ_AUDIENCE"))


def test_servers_of_compose_are_asked_where_they_answer(tmp_path: Path) -> None:
    services = compose()["services"]
    _, program, *arguments = services["authz"]["healthcheck"]["test"]

    assert program == json.loads(instruction("ENTRYPOINT"))[0]
    assert run(*arguments, "--help", folder=tmp_path).returncode == 0
    assert "AUTHZ_HTTP_LISTEN" in environment(COMPOSE / "settings.env")
    assert services["operator"]["healthcheck"] == {"disable": True}


def test_passwords_of_compose_are_never_committed() -> None:
    files = [secret["file"] for secret in compose()["secrets"].values()]

    assert {str(Path("deploy/compose", file).parent) for file in files} == {"deploy/compose/secrets"}
    assert "/deploy/compose/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_operator_of_compose_reaches_the_same_store_as_the_servers() -> None:
    server, operator = environment(COMPOSE / "settings.env"), compose()["services"]["operator"]["environment"]

    assert [server[f"AUTHZ_STORE{name}"] for name in ("", "_PLAINTEXT")] == [
        operator[f"AUTHZ_STORE{name}"] for name in ("", "_PLAINTEXT")
    ]
    assert (server["AUTHZ_STORE_USERNAME"], operator["AUTHZ_STORE_USERNAME"]) == (SERVER, OPERATOR)


def test_document_has_the_users_of_the_file() -> None:
    text = re.sub(r" \\\n\s+", " ", (ROOT / "docs/fleet.md").read_text(encoding="utf-8"))
    told = dict(re.findall(r"^\$ valkey-cli ACL SETUSER (authz-\w+) on '>PASSWORD' (.*)$", text, re.MULTILINE))
    lines = (STORE / "users.acl").read_text(encoding="utf-8")

    assert {user: rules.replace("'", "") for user, rules in told.items()} == dict(
        re.findall(r"^user (authz-\w+) on #\w+ (.*)$", lines, re.MULTILINE)
    )
    assert set(told) == set(PASSWORDS)
