"""Organizations from WorkOS, by its own client, over real HTTP."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from authz.demo.issuer.directory import DEFAULT_API_KEY
from authz.demo.issuer.program import IssuerServer
from authz.errors import ConfigError, DirectoryUnavailableError
from authz.organizations.workos import WorkOSDirectory
from authz.policy import Organization
from authz.runtime.flow import run
from authz.runtime.network.transport import Transport
from tests.doubles import ORG, ManualClock
from tests.loopback import OK, Connection, Loopback, unreachable

ACME = "org_01JYACME000000000000000001"
KEY = "sk_test_0123456789"
ANSWER: dict[str, Any] = {
    "object": "organization",
    "id": ORG,
    "name": "Acme Freight",
    "domains": [
        {
            "object": "organization_domain",
            "id": "org_domain_01JYACME0000000000000000",
            "organization_id": ORG,
            "domain": "acme.example",
            "state": "a state of next year",
            "created_at": "2026-01-15T12:00:00.000Z",
            "updated_at": "2026-01-15T12:00:00.000Z",
        }
    ],
    "metadata": {"tier": "diamond", "plan": " gold ,early-access,"},
    "external_id": "tenant-7",
    "stripe_customer_id": "cus_R9qWAGMQ6nGE7V",
    "created_at": "2026-01-15T12:00:00.000Z",
    "updated_at": "2026-01-15T12:00:00.000Z",
}
UNUSABLE = "not an organization"
ANOTHER = "mismatch (the answer is not the organization that was asked for)"

Serve = Callable[[Connection], None]
New = Callable[..., WorkOSDirectory]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what WorkOS's client reads by itself: none of it may count."""
    for name, value in {"API_KEY": "sk_wrong", "BASE_URL": "http://127.0.0.1:9", "REQUEST_TIMEOUT": "soon"}.items():
        monkeypatch.setenv(f"WORKOS_{name}", value)


@pytest.fixture
def new(clock: ManualClock) -> Iterator[New]:
    """Return a function that builds a directory, and close what it has built."""
    built: list[WorkOSDirectory] = []

    def build(url: str, **options: Any) -> WorkOSDirectory:
        built.append(WorkOSDirectory(**{"api_key": KEY, "base_url": url, "clock": clock.clock, **options}))
        return built[-1]

    yield build
    for directory in built:
        directory.close()


def answering(answer: object, status: str = "200 OK", *headers: str) -> Serve:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return lambda connection: connection.answer(body, *headers, status=status)


def base_of(server: Loopback) -> str:
    return server.url.removesuffix("/oauth2/jwks")


def found(new: New, answer: object, **options: Any) -> Organization | None:
    with Loopback(answering(answer)) as server:
        return run(new(base_of(server), **options).find(ORG))


def error_of(new: New, serve: Serve, caplog: pytest.LogCaptureFixture, **options: Any) -> str:
    """Return what is logged about a question that fails; check that it does not reveal the key."""
    with Loopback(serve) as server, pytest.raises(DirectoryUnavailableError):
        run(new(base_of(server), **options).find(ORG))
    assert KEY not in caplog.text
    (record,) = caplog.records
    fields: dict[str, str] = getattr(record, "fields")  # noqa: B009 - an extra of ours
    assert (record.message.split()[0], fields["directory"]) == ("directory_failed", "WorkOSDirectory")
    return fields["error"]


# ---- The stand-in of this project ----


@pytest.fixture(scope="module")
def issuer() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


def test_an_organization_is_found_with_its_name_tenant_labels_and_groups(new: New, issuer: IssuerServer) -> None:
    directory = new(issuer.address, api_key=DEFAULT_API_KEY, groups_key="plan")

    assert run(directory.find(ACME)) == Organization(
        tenant="tenant-acme",
        groups=frozenset({"gold", "early-access"}),
        labels={"plan": "gold,early-access", "region": "eu"},
        name="Acme Freight",
    )


def test_one_that_there_is_not_is_unknown(new: New, issuer: IssuerServer) -> None:
    directory = new(issuer.address, api_key=DEFAULT_API_KEY)

    assert run(directory.find("org_01JYNOBODY0000000000000000")) is None
    assert (directory.counters.unknown, directory.counters.failed) == (1, 0)


def test_an_id_cannot_lead_to_another_path(new: New) -> None:
    with Loopback(answering({"message": "Not found"}, "404 Not Found")) as server:
        assert run(new(base_of(server)).find("../users?id=1#")) is None

    assert server.requests[0].startswith(b"GET /organizations/..%2Fusers%3Fid%3D1%23 HTTP/1.1\r\n")


def test_a_wrong_key_is_said_once_and_asked_with_no_more_than_twice_a_minute(
    new: New, issuer: IssuerServer, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    directory, before = new(issuer.address), issuer.requests[f"/organizations/{ACME}"]
    for _ in range(60):
        with pytest.raises(DirectoryUnavailableError):
            run(directory.find(ACME))
        clock.advance(1)

    assert issuer.requests[f"/organizations/{ACME}"] - before <= 2
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", "directory_failed directory='WorkOSDirectory' error='status 401 (WorkOS refused our API key)'")
    ]


# ---- What WorkOS may answer ----


def test_the_request_is_that_of_the_official_client(new: New) -> None:
    with Loopback(answering(ANSWER)) as server:
        run(new(base_of(server)).find(ORG))
        head = server.requests[0].decode().lower()

    assert head.startswith(f"get /organizations/{ORG.lower()} http/1.1\r\n")
    assert f"authorization: bearer {KEY}\r\n" in head
    assert "user-agent: workos python/" in head


def test_groups_are_none_unless_a_key_is_named(new: New) -> None:
    organization = found(new, ANSWER)

    assert organization is not None
    assert (organization.groups, organization.tenant) == (frozenset(), "tenant-7")
    assert organization.labels == ANSWER["metadata"]


@pytest.mark.parametrize(
    "external_id", ["two words", "tenant\r\nx-org-id: org_2", "ünï", "a,b", "x" * 257, 7, ["tenant-7"]]
)
def test_an_external_id_that_is_no_identifier_is_ignored_and_logged(
    new: New, caplog: pytest.LogCaptureFixture, external_id: object
) -> None:
    organization = found(new, {**ANSWER, "external_id": external_id})

    assert organization is not None
    assert (organization.tenant, organization.name) == ("", "Acme Freight")
    assert [record.message for record in caplog.records] == [f"external_id_ignored organization='{ORG}'"]


def test_a_group_that_is_no_word_is_ignored_and_logged(new: New, caplog: pytest.LogCaptureFixture) -> None:
    organization = found(new, {**ANSWER, "metadata": {"plan": "gold, two words"}}, groups_key="plan")

    assert organization is not None
    assert organization.groups == {"gold"}
    assert [record.message for record in caplog.records] == [f"groups_ignored organization='{ORG}'"]


@pytest.mark.parametrize(
    ("serve", "error"),
    [
        pytest.param(
            answering({"message": "Forbidden"}, "403 Forbidden"), "status 403 (WorkOS refused our API key)", id="403"
        ),
        pytest.param(answering({"message": KEY}, "500 Oops"), "status 500", id="500"),
        pytest.param(answering(b"<html>", "503 Down"), "status 503", id="503"),
        pytest.param(answering({"message": KEY}, "422 No"), "status 422", id="422"),
        pytest.param(answering({"message": KEY}, "418 Teapot"), "status 418", id="418"),
        pytest.param(answering(b"<html>", "404 Not Found"), "status 404 (but not from WorkOS)", id="404-of-a-proxy"),
        pytest.param(answering(b"[]", "404 Not Found"), UNUSABLE, id="404-list"),
        pytest.param(answering(b"", "301 Moved", "location: http://127.0.0.1:9/"), "redirect", id="redirect"),
        pytest.param(answering(b"not JSON"), ANOTHER, id="not-json"),
        pytest.param(answering(b"[" * 100_000), ANOTHER, id="deep"),
        pytest.param(answering(b"[]"), UNUSABLE, id="list"),
        pytest.param(answering(b"null"), UNUSABLE, id="null"),
        pytest.param(answering({}), UNUSABLE, id="empty"),
        pytest.param(answering({**ANSWER, "created_at": KEY}), UNUSABLE, id="no-time"),
        pytest.param(answering({**ANSWER, "id": "org_2"}), ANOTHER, id="another"),
        pytest.param(answering({**ANSWER, "metadata": None}), ANOTHER, id="no-metadata"),
        pytest.param(answering({**ANSWER, "name": 7}), ANOTHER, id="no-name"),
        pytest.param(answering(b" " * 300_000), "too_large", id="too-large"),
        pytest.param(lambda connection: connection.send(b"nonsense\r\n\r\n"), "protocol", id="no-http"),
        pytest.param(lambda connection: connection.reset(), "protocol", id="reset"),
    ],
)
def test_what_is_no_answer_is_not_taken_for_one(
    new: New, caplog: pytest.LogCaptureFixture, serve: Serve, error: str
) -> None:
    assert error_of(new, serve, caplog) == error


def test_a_slow_answer_is_none(new: New, caplog: pytest.LogCaptureFixture) -> None:
    def drip(connection: Connection) -> None:
        connection.send(OK)
        connection.drip(b"x-slow: 1\r\n" * 1000)

    assert error_of(new, drip, caplog, transport=Transport(timeout=0.2)) == "timeout"


def test_a_server_that_is_down_is_no_answer(new: New) -> None:
    with unreachable() as url, pytest.raises(DirectoryUnavailableError):
        run(new(url).find(ORG))


@pytest.mark.parametrize(("header", "pause"), [("7", 7), ("3600", 60), ("nonsense", 1)])
def test_a_limit_of_the_rate_is_kept(new: New, clock: ManualClock, header: str, pause: int) -> None:
    with Loopback(answering({"message": "Slow down"}, "429 Too Many Requests", f"retry-after: {header}")) as server:
        directory, requests = new(base_of(server)), []
        for seconds in (0.0, pause - 0.2, 0.4):
            clock.advance(seconds)
            with pytest.raises(DirectoryUnavailableError):
                run(directory.find(ORG))
            requests.append(len(server.requests))

    assert requests == [1, 1, 2]


# ---- How it is built ----


@pytest.mark.parametrize("key", ["", "sk test", "sk_test\n", "sk_tést"])
def test_a_key_that_cannot_be_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError, match=r"^workos_api_key: must be visible ASCII, such as sk_live_…$"):
        WorkOSDirectory(api_key=key)


@pytest.mark.parametrize("url", ["http://api.workos.com", "ftp://api.workos.com", "api.workos.com", "https://u@h"])
def test_the_key_goes_nowhere_in_the_clear(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^workos_base_url: "):
        WorkOSDirectory(api_key=KEY, base_url=url)


def test_it_shows_where_it_asks_and_no_key(new: New) -> None:
    assert repr(new("https://api.workos.example")) == "WorkOSDirectory(base_url='https://api.workos.example')"


def test_without_the_extra_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['workos'] = None\n"
        "from authz import ConfigError, WorkOSDirectory\n"
        "try: WorkOSDirectory(api_key='sk_test')\n"
        "except ConfigError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert result.stdout == "WorkOSDirectory: it needs the extra: pip install 'grpc-org-authz[workos]'\n"
