"""What a call waits for: the keys of an issuer, before its verdict; and what is left of one that ends meanwhile."""

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import pytest

from authz import Authorizer, Verifier, current_principal
from authz.connect import interceptors_sync
from authz.demo.issuer.signing import SigningKey
from tests.connect.client import OK, bearer
from tests.connect.conftest import Serve
from tests.connect.messages import GOOGLE
from tests.connect.servers import Server
from tests.connect.service import KINDS, PUBLIC, PUBLIC_METHODS, SERVICE, SyncHandlers, Witness, WsgiApp
from tests.doubles import ORG, eventually
from tests.interceptors.conftest import WatchedTransport

BOTH = pytest.mark.parametrize("server", [Server.UVICORN, Server.WAITRESS], ids=lambda it: it.name)


@pytest.fixture
def transport(ec_key: SigningKey) -> WatchedTransport:
    return WatchedTransport(ec_key)


@pytest.fixture
def cold(new_verifier: Callable[..., Verifier], transport: WatchedTransport) -> Authorizer:
    """Return a judge that has no keys yet."""
    return Authorizer(new_verifier(transport=transport), public_methods=PUBLIC_METHODS)


@BOTH
def test_calls_wait_for_keys_and_stop_no_others(
    serve: Serve, server: Server, cold: Authorizer, transport: WatchedTransport, token: str
) -> None:
    site = serve(server, judge=cold)
    with ThreadPoolExecutor(len(KINDS)) as pool:
        calls = [pool.submit(site.ask, kind, headers=bearer(token)) for kind in KINDS if kind != "bidi_stream"]
        transport.await_request()
        assert site.ask("unary", service=PUBLIC).code == OK
        transport.release()
        assert [call.result().notes[0] for call in calls] == [ORG] * len(calls)
    assert transport.fetches == 1


@BOTH
def test_an_outage_of_the_issuer_is_told_as_one(
    serve: Serve, server: Server, cold: Authorizer, transport: WatchedTransport, token: str
) -> None:
    transport.up()
    transport.down()
    site = serve(server, judge=cold)
    for kind in KINDS:
        outcome = site.ask(kind, headers=bearer(token))
        assert (outcome.code, outcome.reason) == ("unavailable", "KEY_SET_UNAVAILABLE")
        assert int(outcome.headers["retry-after"]) > 0


def test_a_caller_that_gives_up_is_not_refused(
    serve: Serve, cold: Authorizer, transport: WatchedTransport, token: str
) -> None:
    site = serve(judge=cold)
    outcome = site.ask("unary", headers=bearer(token), timeout_ms=100)
    transport.release()

    assert (outcome.code, site.told, site.witness.sights) == ("deadline_exceeded", [], [])
    assert eventually(lambda: site.ask("unary", headers=bearer(token)).code == OK)


def test_a_response_that_no_server_reads_leaves_nothing_behind(verifier: Verifier, token: str) -> None:
    judge = Authorizer(verifier)
    app = WsgiApp(GOOGLE, SyncHandlers(GOOGLE, Witness()), interceptors_sync(judge))
    body = bytes(5)
    environ: dict[str, Any] = {
        "PATH_INFO": f"/{SERVICE}/server_stream",
        "SCRIPT_NAME": "",
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "application/connect+proto",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_AUTHORIZATION": f"Bearer {token}",
        "wsgi.input": BytesIO(body),
        "wsgi.url_scheme": "http",
    }
    left: list[Any] = []

    def serve() -> None:
        response: Any = app(environ, lambda *_: left.append(len(judge.streams)))
        response.close()
        del response
        gc.collect()
        left.append(len(judge.streams))
        with pytest.raises(LookupError):
            current_principal()
        left.append("no caller")

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()

    assert left == [1, 0, "no caller"]
