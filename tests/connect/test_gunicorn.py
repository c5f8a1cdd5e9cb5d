"""Behind gunicorn, which forks its workers, and hands bodies on as they come."""

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.demo.issuer.signing import SigningKey
from tests.connect.client import CONNECT, OK, OVER_HTTP1, Outcome, Way, bearer, begin, client, finish
from tests.connect.messages import GOOGLE
from tests.connect.service import PUBLIC
from tests.connect.test_calls import replies
from tests.doubles import ORG, jwks, m2m_claims
from tests.programs import Program

ROOT = Path(__file__).parents[2]
EACH = pytest.mark.parametrize(
    ("way", "kind"), [pytest.param(way, kind, id=f"{way.name}-{kind}") for way in OVER_HTTP1 for kind in way.kinds]
)


@pytest.fixture(scope="module", params=["sync", "gthread"])
def port(request: pytest.FixtureRequest, ec_key: SigningKey) -> Iterator[int]:
    command = (sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--worker-class", request.param)
    options = ["--threads", "2", "--workers", "2", "tests.connect.program:app"]
    with Program(*options, folder=ROOT, command=command, TESTS_JWKS=json.dumps(jwks(ec_key))) as server:
        line = server.await_line(lambda line: "Listening at" in line)
        [port] = re.findall(r"http://127\.0\.0\.1:(\d+)", line)
        yield int(port)


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims(time.time()))


def ask(port: int, way: Way, kind: str, **options: object) -> Outcome:
    with client(port, GOOGLE, way) as one:
        requests = [GOOGLE.order(note="hello")]
        return finish(begin(one, GOOGLE, kind, requests, use_get=way.use_get, **options))


@EACH
def test_callers_are_told_apart(port: int, way: Way, kind: str, token: str) -> None:
    served = ask(port, way, kind, headers=bearer(token, x_org_id="forged"))
    refused = ask(port, way, kind)
    public = ask(port, way, kind, service=PUBLIC)

    assert (served.code, served.notes) == (OK, replies(kind, ORG))
    assert (refused.code, refused.reason) == ("unauthenticated", "TOKEN_MISSING")
    assert public.notes == replies(kind, "anonymous")


def test_two_tokens_are_one_too_many(port: int, token: str) -> None:
    assert ask(port, CONNECT, "unary", headers=bearer(token, token)).reason == "TOKEN_MALFORMED"
