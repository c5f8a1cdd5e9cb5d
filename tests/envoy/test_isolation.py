"""What Envoy shows of a request must not name another organization, and must be all there is."""

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authz.authorizer import Authorizer
from authz.decision import Decision
from authz.demo.signing import SigningKey
from authz.demo.v1 import ledger_pb2 as pb
from authz.envoy import rules
from authz.envoy.check.isolation import RequestIsolation
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse
from authz.errors import ConfigError
from authz.policy import Policy
from authz.settings import Settings
from authz.verifier import Verifier
from tests.doubles import ORG, jwks, m2m_claims
from tests.envoy.messages import FORMS, GRPC, Denial, Form, bearer, is_sound
from tests.marked import descriptor_set, service_file, with_imports

OTHER = "org_01JYGLOBEX0000000000000000"
TENANT = "tenant-7"
SERVICE = "/authz.demo.v1.LedgerService"
POST, IMPORT = f"{SERVICE}/PostEntry", f"{SERVICE}/ImportEntries"
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
    """Return a function that makes one which asks about a request as Envoy shows it."""
    policy = {"name": "all", "allow_rules": [{"name": "all"}], "organizations": {ORG: {"tenant": TENANT}}}
    authorizer = Authorizer(
        new_verifier(jwks=jwks(ec_key)),
        public_methods=[IMPORT],
        policy=Policy.from_document(policy),
        observers=[decisions.append],
    )
    token = ec_key.sign(m2m_claims())

    def new_ask(*strictness: Any) -> Ask:
        servicer = AuthorizationServicer(authorizer, isolation=RequestIsolation(descriptors, *strictness))

        def ask(
            body: bytes, *more: tuple[str, str], kind: tuple[str, str] = GRPC, path: str = POST, form: Form = FORMS[0]
        ) -> CheckResponse:
            question: CheckRequest = form(kind, bearer(token), *more, path=path)
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


def test_every_message_that_is_shown_is_checked(ask: Ask) -> None:
    assert is_allowed(ask(OWN + OWN))
    assert reason(ask(OWN + FOREIGN)) == "ORGANIZATION_MISMATCH"


def test_nobody_may_name_an_organization(ask: Ask) -> None:
    assert is_allowed(ask(framed(naming("")), path=IMPORT))
    assert reason(ask(OWN, path=IMPORT)) == "ORGANIZATION_MISMATCH"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(framed(gzip.compress(naming(ORG)), flag=1), id="compressed"),
        pytest.param(OWN[:-1], id="cut"),
        pytest.param(OWN + OWN[:-1], id="cut in the second message"),
        pytest.param(OWN + b"\0\0\0", id="cut in the second prefix"),
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


@pytest.mark.parametrize("kind", ["application/json", "application/grpc-web+proto", "application/proto"])
def test_other_kinds_of_body_are_refused(ask: Ask, kind: str) -> None:
    response = ask(OWN, kind=("content-type", kind))

    assert (response.status.code, response.dynamic_metadata.fields["reason"].string_value) == (
        7,
        "organization_unverified",
    )


def test_body_that_is_shown_as_text_is_refused(
    descriptors: Path, new_verifier: Callable[..., Verifier], ec_key: SigningKey
) -> None:
    """Envoy replaces what is no UTF-8 in it, so the upstream gets another message."""
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
            rules.isolation(settings)
    else:
        assert rules.isolation(settings) is not None
