"""What Envoy shows of a request must be complete, and must not name another organization."""

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authz.decisions.decision import Decision
from authz.demo.issuer.signing import SigningKey
from authz.demo.v1 import ledger_pb2 as pb
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse
from authz.errors import ConfigError
from authz.http.isolation import RequestIsolation
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.policy import Policy
from authz.server import policy_files
from authz.settings.settings import Settings
from tests.doubles import ORG, jwks, m2m_claims
from tests.envoy.check.messages import FORMS, GRPC, Denial, Form, bearer, is_sound
from tests.marked import descriptor_set, service_file, with_imports

OTHER = "org_01JYGLOBEX0000000000000000"
TENANT = "tenant-7"
SERVICE = "/authz.demo.v1.LedgerService"
POST, LIST, IMPORT = f"{SERVICE}/PostEntry", f"{SERVICE}/ListEntries", f"{SERVICE}/ImportEntries"
UNMARKED = "/grpc.health.v1.Health/Check"

Ask = Callable[..., CheckResponse]


def framed(message: bytes, *, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4) + message


def naming(org_id: str) -> bytes:
    return pb.PostEntryRequest(draft=pb.EntryDraft(memo="é", org_id=org_id)).SerializeToString()


OWN, FOREIGN = framed(naming(ORG)), framed(naming(OTHER))


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("descriptors") / "api.binpb"
    path.write_bytes(descriptor_set(pb.DESCRIPTOR))
    return path


NewAsk = Callable[..., Ask]


@pytest.fixture
def decisions() -> list[Decision]:
    return []


@pytest.fixture
def new_ask(
    descriptors: Path, new_verifier: Callable[..., Verifier], ec_key: SigningKey, decisions: list[Decision]
) -> NewAsk:
    """Return a function that makes a function that asks about a request as Envoy shows it."""
    policy = {"name": "all", "allow_rules": [{"name": "all"}], "organizations": {ORG: {"tenant": TENANT}}}
    authorizer = Authorizer(
        new_verifier(jwks=jwks(ec_key)),
        public_methods=[LIST],
        policy=Policy.from_document(policy),
        observers=[decisions.append],
    )
    token = ec_key.sign(m2m_claims())

    def new_ask(*strictness: Any) -> Ask:
        servicer = AuthorizationServicer(authorizer, isolation=RequestIsolation(descriptors, *strictness))

        def ask(
            body: bytes,
            *more: tuple[str, str],
            kind: tuple[str, str] | None = GRPC,
            path: str = POST,
            verb: str = "POST",
            form: Form = FORMS[0],
        ) -> CheckResponse:
            question: CheckRequest = form(*filter(None, [kind]), bearer(token), *more, path=path)
            question.attributes.request.http.method = verb
            question.attributes.request.http.raw_body = body
            return CheckResponse.FromString(asyncio.run(servicer.check(question.SerializeToString(), None)))

        return ask

    return new_ask


@pytest.fixture
def ask(new_ask: NewAsk) -> Ask:
    return new_ask()


def is_allowed(response: CheckResponse) -> bool:
    return is_sound(response) and response.status.code == 0


def reason(response: CheckResponse) -> str:
    denial = Denial(response)
    assert denial.code == 7
    return denial.reason


def test_request_may_name_the_own_organization_only(ask: Ask) -> None:
    assert is_allowed(ask(OWN))
    assert is_allowed(ask(framed(naming(""))))
    assert is_allowed(ask(framed(naming(TENANT))))
    assert reason(ask(FOREIGN)) == "ORGANIZATION_MISMATCH"


@pytest.mark.parametrize("second", [OWN, FOREIGN, framed(b"")], ids=["own", "foreign", "empty"])
def test_second_message_of_a_method_that_takes_one_is_refused(ask: Ask, second: bytes) -> None:
    """Servers differ in which of them they read."""
    assert reason(ask(OWN + second)) == "ORGANIZATION_UNVERIFIED"


@pytest.mark.parametrize("path", [IMPORT, f"{SERVICE}/ReconcileEntries"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_body_of_a_stream_of_requests_is_never_taken_for_the_whole(ask: Ask, path: str, form: Form) -> None:
    """A body that is cut off at max_request_bytes looks like one that ends there."""
    empty = framed(b"")

    assert reason(ask(empty, path=path, form=form)) == "ORGANIZATION_UNVERIFIED"
    assert reason(ask(empty, ("x-envoy-auth-partial-body", "false"), path=path, form=form)) == "ORGANIZATION_UNVERIFIED"


@pytest.mark.parametrize("path", [IMPORT, f"{SERVICE}/ReconcileEntries"])
def test_stream_of_requests_that_is_not_shown_is_left_to_the_upstream_unless_it_must_not(
    new_ask: NewAsk, path: str
) -> None:
    assert is_allowed(new_ask()(b"", path=path))
    assert reason(new_ask("enforce")(b"", path=path)) == "ORGANIZATION_UNVERIFIED"


def test_unknown_caller_may_not_name_an_organization(ask: Ask) -> None:
    assert is_allowed(ask(framed(pb.ListEntriesRequest(account="cash").SerializeToString()), path=LIST))
    assert (
        reason(ask(framed(pb.ListEntriesRequest(org_id=ORG).SerializeToString()), path=LIST)) == "ORGANIZATION_MISMATCH"
    )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(framed(gzip.compress(naming(ORG)), flag=1), id="compressed"),
        pytest.param(framed(naming(ORG), flag=1), id="said to be compressed"),
        pytest.param(framed(naming(ORG), flag=0x80), id="with a flag of gRPC-Web"),
        pytest.param(OWN[:-1], id="cut"),
        pytest.param(OWN + OWN[:-1], id="cut in the second message"),
        pytest.param(OWN + b"\0\0\0", id="cut in the second prefix"),
        pytest.param(framed(b'\n\3"\1\xff'), id="no UTF-8"),
        pytest.param(bytes(5) * 10_000, id="many empty messages"),
        pytest.param(b"\0", id="cut in the first"),
        pytest.param(framed(b"\xff"), id="no message"),
        pytest.param(naming(ORG), id="no frame"),
    ],
)
def test_what_cannot_be_read_is_refused(ask: Ask, body: bytes) -> None:
    assert reason(ask(body)) == "ORGANIZATION_UNVERIFIED"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_beginning_of_a_body_is_not_taken_for_the_whole(ask: Ask, form: Form) -> None:
    partial = "x-envoy-auth-partial-body"

    assert reason(ask(OWN, (partial, "true"), form=form)) == "ORGANIZATION_UNVERIFIED"
    # Whatever the caller has sent under that name.
    assert reason(ask(OWN, (partial, "false"), (partial, "true"), form=form)) == "ORGANIZATION_UNVERIFIED"
    assert is_allowed(ask(OWN, (partial, "false"), form=form))


KINDS = [
    *("application/json", "application/proto", "application/connect+proto", "text/plain", ""),
    *("application/grpc+json", "application/grpc+xml", "application/grpc+proto+json", "application/grpc+"),
    *("application/grpc;charset=utf-8", "application/grpc; json", "application/grpc+proto;x", "application/grpc;"),
    *("Application/grpc", "application/grpc+PROTO", " application/grpc", "application/grpc "),
    *("application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"),
    *("application/grpc,application/grpc", "application/grpc, application/grpc+json"),
]


def reason_of_any(response: CheckResponse) -> str:
    """Return why a request is refused that Envoy may not take for gRPC."""
    assert response.status.code == 7
    return str(response.dynamic_metadata.fields["reason"].string_value)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_body_are_refused_shown_or_not(ask: Ask, kind: str, form: Form) -> None:
    """What is JSON to an upstream may be a message without an organization to protobuf."""
    for body in (OWN, framed(b""), b""):
        assert reason_of_any(ask(body, kind=("content-type", kind), form=form)) == "organization_unverified"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_body_of_no_kind_or_of_two_is_refused(ask: Ask, form: Form) -> None:
    for body in (OWN, b""):
        assert reason_of_any(ask(body, kind=None, form=form)) == "organization_unverified"
        second = ("content-type", "application/grpc+proto")
        assert reason_of_any(ask(body, second, form=form)) == "organization_unverified"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_both_names_of_protobuf_are_good(ask: Ask, form: Form) -> None:
    assert is_allowed(ask(OWN, kind=("content-type", "application/grpc"), form=form))
    assert is_allowed(ask(OWN, kind=("content-type", "application/grpc+proto"), form=form))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_body_that_a_later_filter_would_decompress_is_refused(ask: Ask, form: Form) -> None:
    """Some compressed bytes begin like a gRPC message."""
    assert reason(ask(OWN, ("content-encoding", "br"), form=form)) == "ORGANIZATION_UNVERIFIED"
    assert reason(ask(OWN, ("content-encoding", "identity, br"), form=form)) == "ORGANIZATION_UNVERIFIED"
    assert is_allowed(ask(OWN, ("content-encoding", "identity"), form=form))


@pytest.mark.parametrize("verb", ["GET", "PUT", "QUERY", "post", ""])
def test_method_is_asked_for_by_post_only(ask: Ask, verb: str) -> None:
    """Connect accepts a GET, with its message in the query."""
    query = "?connect=v1&encoding=json&message=%7B%22orgId%22%3A%22x%22%7D"
    for kind in (GRPC, ("content-type", "application/json"), None):
        for path in (POST, POST + query):
            for body in (b"", OWN):
                assert reason_of_any(ask(body, kind=kind, path=path, verb=verb)) == "organization_unverified"


SPELLINGS = [
    *(f"{POST}?x=y", f"{POST}?"),
    *("/authz.demo.v1.LedgerService%2FPostEntry", "/authz.demo.v1.LedgerService/Post%45ntry"),
    *("/authz%2edemo.v1.LedgerService/PostEntry", "/authz.demo.v1.LedgerService%252FPostEntry"),
    *("/authz.demo.v1.ledgerservice/postentry", "/AUTHZ.DEMO.V1.LEDGERSERVICE/POSTENTRY"),
    *(f"{POST}/", f"/{POST}", "/authz.demo.v1.LedgerService//PostEntry", "\\authz.demo.v1.LedgerService\\PostEntry"),
    *("/authz.demo.v1.LedgerService/./PostEntry", "/authz.demo.v1.LedgerService/x/../PostEntry", f"/x/..{POST}"),
    *(f"{POST};v=1", f"{POST}%00", f"{POST}%20", f"/api{POST}", f"/a/b{POST}/", f"{POST}%3Fx=y", f"{POST}%23x"),
    *(f"{POST}/x", f"{POST}%3Fx/y", f"/x%3F{POST}", f"/;x{POST}", f"{POST}/%2e%2e/PostEntry"),
    "/" + "x" * 4096,
]


@pytest.mark.parametrize("path", SPELLINGS)
@pytest.mark.parametrize("kind", [GRPC, ("content-type", "application/json")], ids=["grpc", "json"])
def test_path_that_may_lead_to_the_method_is_refused(ask: Ask, path: str, kind: tuple[str, str]) -> None:
    for body in (b"", OWN):
        # That of gRPC has one form, else it is refused before.
        assert reason_of_any(ask(body, path=path, kind=kind)) in ("organization_unverified", "request_malformed")
        if kind is not GRPC and path.startswith("/"):
            assert reason_of_any(ask(body, path=path, kind=kind)) == "organization_unverified"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/whoami",
        "/v1/entries/PostEntry",
        f"{POST}Count",
        f"/v1?{POST}",
        "/%",
        "/authz.demo.v1.LedgerService",
        UNMARKED,
        "/" + "x" * 4095,
    ],
)
def test_path_of_something_else_is_not_looked_at(ask: Ask, path: str) -> None:
    assert is_allowed(ask(b"", path=path, kind=("content-type", "application/json"), verb="GET"))


def test_long_body_is_not_looked_at(ask: Ask) -> None:
    def of(length: int) -> bytes:
        draft = pb.EntryDraft(memo="m", org_id=ORG)
        spare = length - len(framed(pb.PostEntryRequest(draft=draft).SerializeToString()))
        draft.memo += "m" * (spare - 4)
        body = framed(pb.PostEntryRequest(draft=draft).SerializeToString())
        assert len(body) == length
        return body

    assert is_allowed(ask(of(262_144)))
    assert reason(ask(of(262_145))) == "ORGANIZATION_UNVERIFIED"


def test_body_that_is_shown_as_text_is_refused(
    descriptors: Path, new_verifier: Callable[..., Verifier], ec_key: SigningKey
) -> None:
    """Envoy replaces what is not UTF-8, so the upstream gets another message."""
    authorizer = Authorizer(new_verifier(jwks=jwks(ec_key)))
    servicer = AuthorizationServicer(authorizer, isolation=RequestIsolation(descriptors))
    question = FORMS[0](GRPC, bearer(ec_key.sign(m2m_claims())), path=POST)
    question.attributes.request.http.body = OWN.decode()

    answer = CheckResponse.FromString(asyncio.run(servicer.check(question.SerializeToString(), None)))

    assert reason(answer) == "ORGANIZATION_UNVERIFIED"


def test_call_without_a_body_is_left_to_the_upstream_unless_it_must_not(new_ask: NewAsk) -> None:
    assert is_allowed(new_ask()(b""))
    assert is_allowed(new_ask("when_body")(b""))
    assert reason(new_ask("enforce")(b"")) == "ORGANIZATION_UNVERIFIED"
    assert is_allowed(new_ask("enforce")(OWN))


def test_methods_without_marked_fields_and_unknown_ones_are_not_looked_at(new_ask: NewAsk) -> None:
    ask = new_ask("enforce")

    assert is_allowed(ask(b"", path=UNMARKED))
    assert is_allowed(ask(b"no frame", path="/authz.demo.v1.LedgerService/Unknown"))


def test_refusal_of_a_request_is_the_one_decision(ask: Ask, decisions: list[Decision]) -> None:
    ask(FOREIGN)

    [decision] = decisions
    assert decision.refusal is not None
    assert (decision.refusal.reason, decision.evidence.principal.org_id) == ("organization_mismatch", ORG)


def test_bad_token_goes_before(ask: Ask) -> None:
    assert Denial(ask(FOREIGN, bearer("forged"))).code == 16


def test_mark_on_a_number_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "api.binpb"
    path.write_bytes(with_imports(service_file({"Call": {}}, request=".tests.Wrong")))

    with pytest.raises(ConfigError, match="strings only"):
        RequestIsolation(path)


@pytest.mark.parametrize("access", [{}, None], ids=["access", "nothing"])
def test_set_that_has_lost_its_options_is_a_mistake(tmp_path: Path, access: dict[str, object] | None) -> None:
    path = tmp_path / "api.binpb"
    path.write_bytes(with_imports(service_file({"Call": access})))
    settings = Settings(descriptors=str(path))

    if access is None:
        with pytest.raises(ConfigError, match=r"^descriptors: .* does nothing; make it with all options$"):
            policy_files.isolation(settings)
    else:
        assert policy_files.isolation(settings) is not None
