"""What Envoy repeats is taken back at once, whatever happens to the server, the workers or the script."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

import grpc
import httpx2
import pytest
from grpc import StatusCode

from authz.demo.issuer.signing import SigningKey
from authz.envoy.config.authz_cluster import Tls
from authz.envoy.memo.script import NAME
from authz.envoy.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from authz.server.memo.discovery import SERVICE
from authz.server.memo.resource import LASTING, file_content
from tests.certificates import Authority, Certificate
from tests.doubles import ORG, PATIENCE, jwks
from tests.e2e.remembered import SUSPENDED, Remembered, client, served_keys, settled
from tests.store.engines import free_port

OTHER = "org_01JYOTHER00000000000000000"
CALLERS = 3
ROUNDS = 3
PROMISED = 0.1
"""Seconds after the answer to an order in which Envoy may still repeat a yes, where the machine is not overloaded."""
AT_MOST = 2.0
"""What a busy machine may take: far less than an answer is remembered for."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, ec_key: SigningKey) -> Iterator[Remembered]:
    with Remembered(tmp_path_factory.mktemp("memo"), ec_key, workers=2, remember=300) as stack:
        yield stack


class Answer(NamedTuple):
    began: float
    status: int


class Load:
    """Callers who call on and on; a context manager.

    Attributes:
        answers: what they got, by token.

    """

    def __init__(self, stack: Remembered, *tokens: str) -> None:
        self._url, self._over = f"http://{stack.memo}/accounts", threading.Event()
        self.answers: dict[str, list[Answer]] = {token: [] for token in tokens}
        self._pool = ThreadPoolExecutor(CALLERS)

    def __enter__(self) -> Self:
        self._calling = [self._pool.submit(self._call) for _ in range(CALLERS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for calling in self._calling:
            calling.result(PATIENCE)
        self._pool.shutdown()

    def count(self, token: str) -> int:
        return len(self.answers[token])

    def _call(self) -> None:
        with client() as http:
            while not self._over.is_set():
                for token, answers in self.answers.items():
                    began = time.monotonic()
                    found = http.get(self._url, headers={"authorization": f"Bearer {token}"})
                    answers.append(Answer(began, found.status_code))


def is_repeated(stack: Remembered, http: httpx2.Client, token: str) -> bool:
    """Say whether a call is answered without a hop, now or after a few more."""
    headers = {"authorization": f"Bearer {token}"}

    def look() -> bool:
        before = stack.hops()
        return http.get(f"http://{stack.memo}/accounts", headers=headers).status_code == 200 and stack.hops() == before

    return settled(look)


ORDERS = {
    "suspension": (("suspend", ORG, {}), ("resume", ORG, {})),
    "client": (
        ("revoke", "client_01JYPARTNER00000000000000A", {}),
        ("reinstate", "client_01JYPARTNER00000000000000A", {}),
    ),
    "token": (("revoke", "a-jti", {"kind": "token"}), ("reinstate", "a-jti", {"kind": "token"})),
    "key": (("revoke", "ec-1", {"kind": "key"}), ("reinstate", "ec-1", {"kind": "key"})),
}


@pytest.mark.parametrize("order", ORDERS)
def test_no_yes_is_repeated_after_an_order(stack: Remembered, order: str, capsys: pytest.CaptureFixture[str]) -> None:
    give, take_back = ORDERS[order]
    token = stack.sign(jti="a-jti")
    late = []
    with client() as http, Load(stack, token) as load:
        for _ in range(ROUNDS):
            assert is_repeated(stack, http, token)
            stack.order(give[0], give[1], **give[2])
            answered = time.monotonic()
            assert settled(lambda: load.answers[token][-1].status != 200)
            time.sleep(PROMISED)
            yes = [each.began - answered for each in list(load.answers[token]) if each.status == 200]
            late.append(max([0.0, *yes]))
            stack.order(take_back[0], take_back[1], **take_back[2])
            assert settled(lambda: load.answers[token][-1].status == 200)
    with capsys.disabled():
        worst, median = max(late) * 1000, sorted(late)[len(late) // 2] * 1000
        print(f"\n{order}: last yes after the answer to the order: median {median:.0f} ms, worst {worst:.0f} ms")  # noqa: T201

    assert max(late) < AT_MOST
    assert {each.status for each in load.answers[token]} <= {200, 401, 403}


def test_no_yes_of_an_old_policy_is_repeated(stack: Remembered) -> None:
    token = stack.sign()
    with client() as http, Load(stack, token) as load:
        assert is_repeated(stack, http, token)
        stack.change_policy(allow_rules=[{"name": "none", "request": {"paths": ["/tests.Nothing/Call"]}}])
        for _ in range(2):
            stack.server.await_event("policy_reloaded")
        reloaded = time.monotonic()
        assert settled(lambda: load.answers[token][-1].status == 403)
        time.sleep(PROMISED)
        late = [each.began - reloaded for each in load.answers[token] if each.status == 200]
        stack.change_policy()
        assert settled(lambda: load.answers[token][-1].status == 200)

    assert max(late) < AT_MOST


def test_nothing_is_lost_and_no_yes_is_wrong_while_envoy_forgets_seventy_times(stack: Remembered) -> None:
    good, suspended = stack.sign(), stack.sign(org_id=SUSPENDED)
    with Load(stack, good, suspended, "malformed") as load:
        for number in range(35):
            stack.order("suspend", f"{OTHER}{number}")
            stack.order("resume", f"{OTHER}{number}")
        calls = load.count(good)
        assert settled(lambda: load.count(good) > calls + CALLERS)

    assert {each.status for each in load.answers[good]} == {200}
    assert {each.status for each in load.answers[suspended]} == {403}
    assert {each.status for each in load.answers["malformed"]} == {401}


def test_a_worker_that_is_killed_takes_back_what_it_said(stack: Remembered) -> None:
    before = stack.version()
    [pid] = {
        line["pid"] for line in stack.server.events() if line.get("event") == "worker_started" and not line["worker"]
    }
    with client() as http, Load(stack, stack.sign()) as load:
        assert is_repeated(stack, http, next(iter(load.answers)))
        os.kill(pid, signal.SIGKILL)
        stack.server.await_event("worker_died")
        assert settled(lambda: stack.version() != before)

    assert {each.status for each in next(iter(load.answers.values()))} == {200}


def test_a_withdrawn_key_ends_what_it_had_signed(tmp_path: Path, ec_key: SigningKey, other_key: SigningKey) -> None:
    published = jwks(ec_key)
    with served_keys(lambda: published) as url, Remembered(tmp_path, ec_key, keys_url=url) as stack, client() as http:
        token = stack.sign()
        assert is_repeated(stack, http, token)
        published = jwks(other_key)
        # An unknown key has the server look for new ones.
        headers = {"authorization": f"Bearer {other_key.sign({'iss': 'https://acme.authkit.app'})}"}
        http.get(f"http://{stack.asked}/accounts", headers=headers)
        looked = time.monotonic()
        mine = {"authorization": f"Bearer {token}"}
        assert settled(lambda: http.get(f"http://{stack.memo}/accounts", headers=mine).status_code == 401)
        assert time.monotonic() - looked < AT_MOST

        # And the server itself ends: nothing is repeated any more, soon.
        good = stack.sign_with(other_key)
        assert is_repeated(stack, http, good)
        stack.server.send(signal.SIGKILL)
        gone = time.monotonic()
        mine = {"authorization": f"Bearer {good}"}
        assert settled(lambda: http.get(f"http://{stack.memo}/accounts", headers=mine).status_code == 503)
        assert time.monotonic() - gone < LASTING + AT_MOST


BROKEN = {
    "error": "function envoy_on_request(handle) error('broken') end",
    "half": "function envoy_on_request(handle) handle:headers():replace('x-org-id', 'org_FORGED') error('x') end",
    "late": "function envoy_on_response(handle) error('broken') end",
    "endless-table": "function envoy_on_request(handle) handle:streamInfo():dynamicMetadata():set('authz.memo') end",
    "nothing": "",
    "not-lua": "this is no Lua",
}


def test_whatever_the_script_does_the_server_decides(tmp_path: Path, ec_key: SigningKey) -> None:
    folder = tmp_path / "xds"
    folder.mkdir(mode=0o700)
    with Remembered(tmp_path, ec_key, xds=f"file:{folder}/memo.json") as stack, client() as http:
        token = stack.sign()
        assert is_repeated(stack, http, token)
        assert oct((folder / "memo.json").stat().st_mode & 0o777) == "0o600"
        for name, source in BROKEN.items():
            beside = folder / "new"
            beside.write_text(file_content(source, name), encoding="utf-8")
            before = stack.stat("extension_config_discovery.http_filter.authz.memo.update_attempt")
            beside.replace(folder / "memo.json")
            assert settled(
                lambda: stack.stat("extension_config_discovery.http_filter.authz.memo.update_attempt") > before  # noqa: B023
            )
            good = http.get(f"http://{stack.memo}/accounts", headers={"authorization": f"Bearer {token}"})
            bad = http.get(f"http://{stack.memo}/accounts", headers={"authorization": "Bearer x"})
            none = http.get(f"http://{stack.memo}/accounts", headers={"x-org-id": ORG})
            assert (good.status_code, bad.status_code, none.status_code) == (200, 401, 401), name
            assert ["x-org-id", ORG] in json.loads(good.text)["headers"]
            assert "org_FORGED" not in good.text
        stack.server.send(signal.SIGKILL)
        stack.server.wait()
        good = http.get(f"http://{stack.memo}/accounts", headers={"authorization": f"Bearer {token}"})

    assert good.status_code == 503


def test_envoy_on_another_machine_proves_who_it_is_and_forgets_as_fast(tmp_path: Path, ec_key: SigningKey) -> None:
    authority, address = Authority(), f"127.0.0.1:{free_port()}"
    (tmp_path / "ca.pem").write_bytes(authority.root)
    for name in ("server", "envoy"):
        certificate = authority.issue_for_loopback()
        (tmp_path / f"{name}.pem").write_bytes(certificate.chain)
        (tmp_path / f"{name}.key").write_bytes(certificate.key)
    ca_file, own, envoys = (str(tmp_path / name) for name in ("ca.pem", "server", "envoy"))
    flags = ("--tls-cert-file", f"{own}.pem", "--tls-key-file", f"{own}.key", "--tls-client-ca-file", ca_file)
    tls = Tls(ca_file=ca_file, cert_file=f"{envoys}.pem", key_file=f"{envoys}.key")
    with Remembered(tmp_path, ec_key, *flags, xds=f"tls:{address}", tls=tls) as stack, client() as http:
        token = stack.sign()
        url, headers = f"http://{stack.memo}/accounts", {"authorization": f"Bearer {token}"}
        repeated = is_repeated(stack, http, token)
        stack.order("suspend", ORG)
        refused = settled(lambda: http.get(url, headers=headers).status_code == 403, AT_MOST)
        heard = [
            what_is_heard(address, authority, pair)
            for pair in (None, Authority().issue_for_loopback(), authority.issue_for_loopback())
        ]

    assert (repeated, refused) == (True, True)
    assert heard == [StatusCode.UNAVAILABLE, StatusCode.UNAVAILABLE, StatusCode.OK]


def what_is_heard(address: str, authority: Authority, certificate: Certificate | None) -> StatusCode:
    """Return ``OK`` if a client with a certificate, or without one, is sent a script, and otherwise why not."""
    pair = (None, None) if certificate is None else (certificate.key, certificate.chain)
    credentials = grpc.ssl_channel_credentials(authority.root, *pair)
    with grpc.secure_channel(address, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.stream_stream(
            f"/{SERVICE}/StreamExtensionConfigs",
            request_serializer=DiscoveryRequest.SerializeToString,
            response_deserializer=DiscoveryResponse.FromString,
        )(iter([DiscoveryRequest(resource_names=[NAME])]), timeout=PATIENCE)
        try:
            next(call)
        except grpc.RpcError as error:
            return error.code()
        call.cancel()
        return StatusCode.OK
