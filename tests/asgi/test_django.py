"""Django for ASGI: its routing, its synchronous views on threads, and how it reads the names of headers."""

import pytest
from django.core.signals import request_finished

from authz import Authorizer, Decision
from authz.asgi import AuthzMiddleware
from authz.http.paths import path_of
from tests.asgi.conftest import NewJudge, Serve, Token
from tests.asgi.test_routing import POLICY, SPELLINGS
from tests.doubles import ORG, eventually
from tests.http.client import Connection, ask, bearer
from tests.http.django_project import ASGI

FORGED = "org_01JYFORGED0000000000000000"


@pytest.fixture(params=["h11", "httptools"])
def parser(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_no_spelling_leads_to_what_the_policy_denies(
    serve: Serve, new_judge: NewJudge, token: Token, parser: str
) -> None:
    port, headers = serve(AuthzMiddleware(ASGI, new_judge(policy=POLICY)), http=parser), bearer(token())

    served = {spelling: ask(port, spelling, headers) for spelling in SPELLINGS}

    assert [spelling for spelling, reply in served.items() if reply.body.startswith(b"private")] == []
    assert served["/PRIVATE"].body.startswith(b"other")
    assert {served[path].reason for path in ("/private", "/%70rivate", "/private%2Fx", "/v1/private")} == {
        "POLICY_DENIED"
    }


def test_path_that_is_judged_is_the_one_that_is_routed(
    serve: Serve, judge: Authorizer, token: Token, told: list[Decision], parser: str
) -> None:
    port = serve(AuthzMiddleware(ASGI, judge), http=parser)
    for target in ("/", "/a", "/a/", "/a%2Fb", "/a%252Fb", "/a;x", "/a%3Fb", "/a%20b", "/caf%C3%A9", "/%ff"):
        told.clear()
        reply = ask(port, target, bearer(token()))

        if reply.status == 200:
            routed = path_of(f"/{reply.body.decode().removeprefix('other ')}")
            assert [(each.call.method, each.verdict) for each in told] == [(routed, "allowed")]
        else:
            assert (target, reply.reason) == ("/%ff", "REQUEST_MALFORMED")


@pytest.mark.parametrize("root", ["/api", "/v1"])
def test_path_below_a_root_path_is_judged_whole(
    serve: Serve, new_judge: NewJudge, token: Token, *, told: list[Decision], root: str
) -> None:
    port = serve(AuthzMiddleware(ASGI, new_judge()), root_path=root)

    assert ask(port, "/private", bearer(token())).body == b"private"
    assert [each.call.method for each in told] == [f"{root}/private"]


@pytest.mark.parametrize("path", ["/caller", "/coroutine"])
def test_views_on_threads_and_coroutines_have_their_caller(
    serve: Serve, judge: Authorizer, token: Token, path: str
) -> None:
    port = serve(AuthzMiddleware(ASGI, judge))
    spellings = ("X-Org-Id", "x_org_id", "X-Org_Id", "x_org-id", "x-org-id-bin", "grpc_metadata_x-org-id")
    forged = [(name, FORGED) for name in spellings]

    seen = ask(port, path, [*forged, *bearer(token()), *forged]).json

    assert seen["current"] == ORG
    assert seen.get("told", ORG) == ORG
    assert seen.get("variables", {}).get("HTTP_X_ORG_ID", ORG) == ORG
    assert not any(FORGED in value for name, value in seen.get("variables", {}).items() if "GRPC" not in name)


def test_synchronous_views_run_on_another_thread(serve: Serve, judge: Authorizer, token: Token) -> None:
    """Otherwise the test above would say less."""
    port = serve(AuthzMiddleware(ASGI, judge))

    threads = {ask(port, path, bearer(token())).json["thread"] for path in ("/caller", "/coroutine")}

    assert len(threads) == 2


def test_stream_ends_and_is_closed(serve: Serve, judge: Authorizer, token: Token) -> None:
    finished: list[object] = []

    def note(**said: object) -> None:
        finished.append(said)

    request_finished.connect(note)
    with Connection(serve(AuthzMiddleware(ASGI, judge))) as connection:
        connection.ask("/silent", bearer(token()))
        assert connection.head()[0] == 200
        assert connection.part() == f"{ORG}\n".encode()
        assert finished == []

        judge.revoke(org_id=ORG)

        assert connection.part() is None
    assert eventually(lambda: finished)
    assert eventually(lambda: len(judge.streams) == 0)
