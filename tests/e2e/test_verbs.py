"""Rules that name HTTP methods, behind a real Envoy: also where it repeats answers, and whatever callers send."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import pytest

from authz import Authorizer, Policy
from authz.demo.issuer.signing import SigningKey
from authz.issuer.verifier import Verifier
from tests.doubles import AUDIENCE, ISSUER, PATIENCE, jwks
from tests.e2e import http1
from tests.e2e.remembered import PUBLIC, Remembered
from tests.e2e.test_same_verdict_http import IN_PROCESS
from tests.interceptors.wire import Wire

ORDERS: dict[str, Any] = {
    "name": "orders",
    "deny_rules": [{"name": "no-trace", "request": {"methods": ["TRACE"]}}],
    "allow_rules": [
        {"name": "reads", "request": {"paths": ["/orders*"], "methods": ["GET", "PROPFIND"]}},
        {
            "name": "deletes",
            "source": {"scopes": ["orders:delete"]},
            "request": {"paths": ["/orders*"], "methods": ["DELETE"]},
        },
        {"name": "sockets", "request": {"paths": ["/socket"], "methods": ["GET"]}},
    ],
}


class Orders(Remembered):
    """The stack with a policy that names HTTP methods, and WebSockets on both listeners."""

    def change_policy(self, **changes: Any) -> None:
        super().change_policy(**{"public": [], "organizations": {}, "quotas": {}, **ORDERS, **changes})

    def _config(self, *upstreams: str) -> Mapping[str, Any]:
        config = super()._config(*upstreams)
        for number in range(2):
            found = config["static_resources"]["listeners"][number]["filter_chains"][0]["filters"][0]["typed_config"]
            found["upgrade_configs"] = [{"upgrade_type": "websocket"}]
            found["http2_protocol_options"]["allow_connect"] = True
        return config

    def verbs(self, path: str) -> list[tuple[str, str]]:
        """Return the HTTP method and the verdict of each decision about a path, as the page shows them."""
        told = httpx2.get(f"http://{self.admin}/api/decisions", trust_env=False, timeout=PATIENCE).json()
        return [(each["verb"], each["verdict"]) for each in told["decisions"] if each["method"] == path]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, ec_key: SigningKey) -> Iterator[Orders]:
    with Orders(tmp_path_factory.mktemp("verbs"), ec_key, remember=300) as stack:
        yield stack


def status_of(target: str, token: str, verb: str, path: str, *headers: tuple[str, str]) -> int:
    """Return the status of a request over HTTP/2, whatever its HTTP method."""
    wire = Wire(target)
    try:
        return wire.status_of(verb, path, [http1.bearer(token), *headers])
    finally:
        wire.close()


VERBS = ("GET", "DELETE", "PROPFIND", "HEAD", "POST", "OPTIONS", "TRACE")


def test_same_token_and_path_are_decided_by_the_http_method_each_time(stack: Orders) -> None:
    """The yes to a GET, which Envoy repeats, is never the answer to another one."""
    token, path = stack.sign(jti="reads"), "/orders/reads"
    expected = {verb: 200 if verb in ("GET", "PROPFIND") else 403 for verb in VERBS}

    def ask(target: str) -> dict[str, int]:
        return {verb: http1.get(target, path, [http1.bearer(token)], verb=verb).status for verb in VERBS}

    assert ask(stack.asked) == expected
    for _ in range(3):
        assert ask(stack.memo) == expected
    before = stack.hops()
    assert ask(stack.memo) == expected
    # Envoy repeats only the yes, and none to an HTTP method that a caller could make up.
    assert stack.hops() - before == len(VERBS) - 1
    assert set(stack.verbs(path)) == {(verb, "allowed" if expected[verb] == 200 else "denied") for verb in VERBS}


def test_doors_in_process_have_the_same_verdicts(stack: Orders, ec_key: SigningKey) -> None:
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(ec_key), algorithms=["ES256"])
    judge = Authorizer(verifier, policy=Policy.from_file(stack.policy), public_methods=[PUBLIC])
    tokens = [[], *([http1.bearer(stack.sign(scope=scope))] for scope in ("orders:delete", ""))]
    overrides: list[list[tuple[str, str]]] = [[], [("x-http-method-override", "DELETE")]]
    with contextlib.ExitStack() as running:
        ports = [running.enter_context(IN_PROCESS[name](judge)) for name in ("asgi", "wsgi")]
        targets = [stack.asked, stack.memo, stack.memo, *(f"127.0.0.1:{port}" for port in ports)]
        for path, verb, token, override in itertools.product(("/orders/1", PUBLIC), VERBS, tokens, overrides):
            sent = [*token, *override]
            answers = [http1.get(target, path, sent, verb=verb) for target in targets]
            assert len({(each.status, each.headers.get("www-authenticate")) for each in answers}) == 1


def test_two_http_methods_of_one_path_are_remembered_each_for_itself(stack: Orders) -> None:
    token, path = stack.sign(jti="both", scope="orders:delete"), "/orders/both"
    for _ in range(3):
        for verb in ("DELETE", "GET", "HEAD"):
            answer = http1.get(stack.memo, path, [http1.bearer(token)], verb=verb)
            assert answer.status == (403 if verb == "HEAD" else 200)
            assert verb == "HEAD" or answer.json["verb"] == verb


@pytest.mark.parametrize("verb", ["get", "delete", "Get", "G" * 33, "G" * 2000])
@pytest.mark.parametrize("path", ["/orders/odd", "/socket"])
def test_what_is_no_http_method_is_refused(stack: Orders, verb: str, path: str) -> None:
    """Over HTTP/1.1 by Envoy, over HTTP/2 by the judge."""
    token = stack.sign(jti="odd")
    for target in (stack.asked, stack.memo, stack.memo):
        assert status_of(target, token, "GET", path) == 200
        assert status_of(target, token, verb, path) == 403
        assert http1.get(target, path, [http1.bearer(token)], verb=verb).status == 400


@pytest.mark.parametrize("name", ["x-http-method-override", "X-HTTP-Method", "x-method-override", "x_http_method"])
def test_header_that_may_replace_the_http_method_is_refused_also_where_a_yes_is_repeated(
    stack: Orders, name: str
) -> None:
    token, path = [http1.bearer(stack.sign(jti="override"))], "/orders/override"
    for target in (stack.asked, stack.memo, stack.memo):
        assert http1.get(target, path, token).status == 200
        refused = http1.get(target, path, [*token, (name, "DELETE")])
        assert refused.status == 403
        assert json.loads(refused.body)["code"] == "permission_denied"


def test_public_paths_are_public_by_every_http_method(stack: Orders) -> None:
    for target in (stack.asked, stack.memo, stack.memo):
        for verb in VERBS:
            assert http1.get(target, PUBLIC, verb=verb).status == 200


def test_handshake_of_a_websocket_is_a_get_over_either_http(stack: Orders) -> None:
    """Over HTTP/2 it is a CONNECT (RFC 8441), which Envoy makes a GET of before anyone is asked."""
    token = stack.sign(jti="socket")
    upgrade = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]
    statuses = {http1.get(stack.asked, "/socket", [http1.bearer(token), *upgrade]).status}
    statuses.add(status_of(stack.asked, token, "CONNECT", "/socket", (":protocol", "websocket")))

    assert statuses == {200}
    assert stack.verbs("/socket")[-2:] == [("GET", "allowed")] * 2
