"""Bytes in, bytes out, without a server: whatever Envoy asks, only a good token is admitted."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.call.call import Call
from authz.call.metadata import TrustedMetadata
from authz.call.principal import Principal
from authz.call.requirements import Assurance
from authz.decisions.decision import Decision, Evidence
from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse
from authz.issuer.introspection import Introspector
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.judge.mesh import MeshPeers
from authz.policy import Policy
from authz.policy.protos.access import Access
from authz.policy.protos.declared import Protos
from authz.runtime.flow import Flow, run
from authz.runtime.text.document import Document
from tests.certificates import Authority, dns, uris
from tests.doubles import AUDIENCE, ISSUER, ORG, FakeIssuer, FakeTransport, ManualClock, json_response, jwks, m2m_claims
from tests.envoy.check.messages import (
    FORMS,
    GRPC,
    GRPC_PATH,
    Denial,
    Form,
    bearer,
    in_header_map,
    in_headers,
    is_sound,
    sentence,
)

Ask = Callable[[CheckRequest | bytes], CheckResponse]

PUBLIC = "/grpc.health.v1.Health/Check"


def asker(authorizer: Authorizer, *, jwt_authn_payload: str = "") -> Ask:
    servicer = AuthorizationServicer(authorizer, jwt_authn_payload=jwt_authn_payload)

    def ask(question: CheckRequest | bytes) -> CheckResponse:
        body = question if isinstance(question, bytes) else question.SerializeToString()
        return CheckResponse.FromString(asyncio.run(servicer.check(body, None)))

    return ask


@pytest.fixture(scope="module")
def known_keys(ec_key: SigningKey) -> Verifier:
    return Verifier(
        issuer=ISSUER, audience=AUDIENCE, jwks=jwks(ec_key), algorithms=["ES256"], clock=ManualClock().clock
    )


@pytest.fixture(scope="module")
def ask(known_keys: Verifier) -> Ask:
    return asker(Authorizer(known_keys, public_methods=[PUBLIC]))


@pytest.fixture(scope="module")
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims())


@pytest.fixture(scope="module")
def bad_tokens(ec_key: SigningKey, other_key: SigningKey) -> list[str]:
    header, payload, signature = ec_key.sign(m2m_claims()).split(".")
    return [
        ec_key.sign(m2m_claims(exp=int(m2m_claims()["exp"]) - 3600)),
        ec_key.sign(m2m_claims(), {"alg": "none"}),
        other_key.sign(m2m_claims(), {"kid": ec_key.kid}),
        f"{header}.{payload}.",
        f"{header}..{signature}",
        f".{payload}.{signature}",
    ]


each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


@each_form
def test_good_token_is_allowed_with_its_organization(ask: Ask, token: str, form: Form) -> None:
    response = ask(form(GRPC, bearer(token)))

    assert is_sound(response)
    assert [o.header.value for o in response.ok_response.headers if o.header.key == "x-org-id"] == [ORG]


@each_form
def test_call_without_a_token_is_denied(ask: Ask, form: Form) -> None:
    denial = Denial(ask(form(GRPC)))

    assert (denial.code, denial.http_status, denial.reason) == (16, 401, "TOKEN_MISSING")


@each_form
def test_second_token_is_refused_however_it_arrives(ask: Ask, token: str, form: Form) -> None:
    denial = Denial(ask(form(GRPC, bearer(token), bearer(token))))

    assert (denial.code, denial.reason) == (16, "TOKEN_MALFORMED")


@each_form
@pytest.mark.parametrize("header", ["x-forwarded-client-cert", "client-cert", "x-request-id"])
def test_bound_token_is_refused_whatever_is_told_of_a_certificate(
    ask: Ask, ec_key: SigningKey, form: Form, header: str
) -> None:
    owner = Authority().issue(*uris("spiffe://cluster.local/ns/a/sa/owner"))
    bound = ec_key.sign(m2m_claims(cnf={"x5t#S256": owner.thumbprint}))
    question = form(GRPC, bearer(bound), (header, f"Hash={owner.thumbprint}"), (header, quote(owner.chain)))
    question.attributes.source.principal = "spiffe://cluster.local/ns/a/sa/owner"
    question.attributes.destination.certificate = quote(owner.chain)

    denial = Denial(ask(question))

    assert (denial.code, denial.reason) == (16, "CLAIM_INVALID")


def with_certificate(question: CheckRequest, certificate: str) -> CheckRequest:
    question.attributes.source.certificate = certificate
    return question


@each_form
@pytest.mark.parametrize("safe", ["/", "", "/+="], ids=["as-python", "as-envoy", "half"])
def test_bound_token_is_good_with_the_certificate_that_envoy_has_seen(
    ask: Ask, ec_key: SigningKey, form: Form, safe: str
) -> None:
    owner, other = (Authority().issue(*uris("spiffe://cluster.local/ns/a/sa/owner")) for _ in range(2))
    bound = bearer(ec_key.sign(m2m_claims(cnf={"x5t#S256": owner.thumbprint})))
    # In turns: a verdict that is remembered is good for its owner only.
    owners, others = (
        [ask(with_certificate(form(GRPC, bound), quote(certificate.chain, safe=safe))) for _ in range(2)]
        for certificate in (owner, other)
    )

    assert [is_sound(response) and response.status.code for response in owners] == [0, 0]
    assert [Denial(response).reason for response in others] == ["CLAIM_INVALID"] * 2


def broken_certificates(pem: str) -> list[str]:
    lines = pem.splitlines()
    return [
        "garbage",
        "%",
        "%ff%fe%00",
        "\u0661",
        quote("\n".join([lines[0], *lines[2:]])),
        quote("\n".join(lines[:-1])),
        quote("".join(lines[1:-1])),
        quote(pem.replace("CERTIFICATE", "PRIVATE KEY")),
        quote("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
        quote(quote(pem)),
    ]


@each_form
@pytest.mark.parametrize("number", range(10))
def test_certificate_that_cannot_be_read_is_none(
    ask: Ask, ec_key: SigningKey, token: str, form: Form, number: int
) -> None:
    owner = Authority().issue()
    bound = ec_key.sign(m2m_claims(cnf={"x5t#S256": owner.thumbprint}))
    broken = broken_certificates(owner.chain.decode())[number]

    denial = Denial(ask(with_certificate(form(GRPC, bearer(bound)), broken)))

    assert (denial.code, denial.reason) == (16, "CLAIM_INVALID")
    assert ask(with_certificate(form(GRPC, bearer(token)), broken)).status.code == 0


@given(st.text())
def test_no_certificate_frees_a_token_from_its_binding(ask: Ask, ec_key: SigningKey, certificate: str) -> None:
    bound = ec_key.sign(m2m_claims(cnf={"x5t#S256": "A" * 43}))

    assert Denial(ask(with_certificate(in_headers(GRPC, bearer(bound)), certificate))).reason == "CLAIM_INVALID"


def test_names_in_a_certificate_that_envoy_reports_make_no_peer_trusted(known_keys: Verifier) -> None:
    """Envoy may be configured to accept certificates that no CA vouches for."""
    gateway = "spiffe://cluster.local/ns/edge/sa/gateway"
    certificate = Authority().issue(*uris(gateway), *dns("gateway"))
    ask = asker(Authorizer(known_keys, trust=MeshPeers(spiffe_ids=[gateway], dns_names=["gateway"])))
    principal = Principal(org_id="org_forged", client_id="c", subject="c", expires_at=253_402_300_799.0)
    question = in_header_map(GRPC)
    for key, value in TrustedMetadata().entries(principal):
        question.attributes.request.http.header_map.headers.add(key=key, raw_value=as_bytes(value))

    assert Denial(ask(with_certificate(question, quote(certificate.chain)))).reason == "TOKEN_MISSING"


def as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


@each_form
def test_envoy_is_asked_for_a_token_and_not_believed(known_keys: Verifier, token: str, form: Form) -> None:
    """It asks about headers that callers sent, which may hold anything."""
    ask = asker(Authorizer(known_keys, trust=MeshPeers(unix_socket=True)))
    principal = Principal(org_id="org_forged", client_id="c", subject="c", expires_at=253_402_300_799.0)
    forged = [(entry.key, entry.value) for entry in TrustedMetadata().entries(principal)][:2]

    assert Denial(ask(form(GRPC, *forged))).reason == "TOKEN_MISSING"
    assert ask(form(GRPC, *forged, bearer(token))) == ask(form(GRPC, bearer(token)))
    assert ask(form(GRPC, bearer(token))).status.code == 0


@each_form
@pytest.mark.parametrize("path", ["//", "/a.B", "/a.B/C/D", "/%2e%2e", ""])
def test_good_token_does_not_excuse_an_odd_path(ask: Ask, token: str, form: Form, path: str) -> None:
    denial = Denial(ask(form(GRPC, bearer(token), path=path)))

    assert (denial.code, denial.reason) == (7, "REQUEST_MALFORMED")


@pytest.mark.parametrize("path", ["//", "/a.B", ""])
def test_odd_path_without_a_token_says_only_that_the_token_is_missing(ask: Ask, path: str) -> None:
    assert Denial(ask(in_headers(GRPC, path=path))).reason == "TOKEN_MISSING"


@each_form
def test_rules_see_the_http_method_as_it_was_sent(known_keys: Verifier, token: str, form: Form) -> None:
    """What Envoy shows of one that it does not know, or of a header that may replace it, opens nothing."""
    document = {"name": "orders", "allow_rules": [{"name": "reads", "request": {"methods": ["GET", "HEAD"]}}]}
    ask = asker(Authorizer(known_keys, policy=Policy.from_document(document), public_methods=["/health"]))

    def reason(verb: str, *headers: tuple[str, str]) -> str:
        response = ask(form(GRPC, bearer(token), *headers, path="/orders/1?x=1", verb=verb))
        return "" if response.status.code == 0 else Denial(response).reason

    for _ in range(2):
        assert [reason(verb) for verb in ("GET", "HEAD")] == ["", ""]
        assert {reason(verb) for verb in ("DELETE", "POST", "OPTIONS", "PROPFIND")} == {"POLICY_DENIED"}
        assert {reason(verb) for verb in ("get", "", "GET\0", " GET", "G" * 10_000)} == {"REQUEST_MALFORMED"}
        assert reason("GET", ("x-http-method-override", "DELETE")) == "REQUEST_MALFORMED"
    assert ask(form(path="/health", verb="get")).status.code == 0


@each_form
def test_query_does_not_hide_the_method(ask: Ask, token: str, form: Form) -> None:
    assert ask(form(GRPC, bearer(token), path=f"{GRPC_PATH}?x=1")).status.code == 0
    assert ask(form(GRPC, path=f"{PUBLIC}?x=1")).status.code == 0


@each_form
def test_public_method_needs_no_token_and_trusts_no_metadata(ask: Ask, form: Form) -> None:
    response = ask(form(GRPC, ("x-org-id", ORG), path=PUBLIC))

    assert response.status.code == 0
    assert not response.ok_response.headers
    assert "x-org-id" in response.ok_response.headers_to_remove


@pytest.mark.parametrize("path", [f"{PUBLIC}/", PUBLIC.lower(), f"/x/..{PUBLIC}", f"/{PUBLIC}", f"{PUBLIC}%20"])
def test_paths_like_a_public_one_are_not_public(ask: Ask, path: str) -> None:
    assert Denial(ask(in_header_map(GRPC, path=path))).reason == "TOKEN_MISSING"


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\xff\xff", b"GET / HTTP/1.1"])
def test_bytes_that_are_no_question_are_denied(ask: Ask, body: bytes) -> None:
    denial = Denial(ask(body))

    assert (denial.code, denial.http_status) == (7, 403)
    assert sentence(denial.json) == ("permission_denied", "Permission denied")


class Hostile(Authorizer):
    """A judge with a fault."""

    def __init__(self, verifier: Verifier, error: BaseException) -> None:
        super().__init__(verifier)
        self._error = error

    def authorize(self, _call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        raise self._error
        yield


class StrangeError(BaseException):
    """Nothing that ``except Exception`` would catch."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("secret"),
        KeyError("secret"),
        RecursionError("secret"),
        MemoryError(),
        StopIteration("secret"),
        StopAsyncIteration(),
        GeneratorExit(),
        TimeoutError("secret"),
        asyncio.CancelledError("secret"),
        StrangeError("secret"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_unforeseen_is_an_internal_error_without_its_text(
    known_keys: Verifier, token: str, error: BaseException
) -> None:
    response = asker(Hostile(known_keys, error))(in_headers(GRPC, bearer(token)))
    denial = Denial(response)

    assert (denial.code, denial.http_status, denial.body, denial.reason) == (13, 500, "Internal error", "INTERNAL")
    assert b"secret" not in response.SerializeToString()


class Generous(Authorizer):
    """A judge that admits a caller that no header can name."""

    def authorize(self, _call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        yield from ()
        return Principal(org_id="org_1\r\nx-org-id: org_2", client_id="c", subject="c")


@each_form
def test_caller_that_no_header_can_name_is_denied(known_keys: Verifier, form: Form) -> None:
    response = asker(Generous(known_keys))(form(GRPC))

    assert (Denial(response).code, Denial(response).http_status) == (13, 500)
    assert b"org_2" not in response.SerializeToString()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=["interrupt", "exit"])
def test_end_of_the_process_is_no_verdict(known_keys: Verifier, error: BaseException) -> None:
    # By hand: a loop would end with it.
    checking = AuthorizationServicer(Hostile(known_keys, error)).check(in_headers().SerializeToString(), None)

    with pytest.raises(type(error)):
        checking.send(None)


# ---- Too much to do ----


def test_check_beyond_what_may_wait_is_undecided_at_once(
    issuer: FakeIssuer, verifier: Verifier, ec_key: SigningKey
) -> None:
    decisions: list[Decision] = []
    servicer = AuthorizationServicer(Authorizer(verifier, observers=[decisions.append]), max_pending=4)
    question = in_headers(GRPC, bearer(ec_key.sign(m2m_claims()))).SerializeToString()
    issuer.transport.hang()
    # Half of the places, because these callers are not verified yet.
    waiting = [servicer.begin(question), servicer.begin(question)]
    denial = Denial(CheckResponse.FromString(answered(servicer.begin(question))))

    assert (denial.code, denial.http_status, denial.reason, denial.headers["retry-after"]) == (
        14,
        503,
        "OVERLOADED",
        "1",
    )
    assert [decision.verdict for decision in decisions] == ["undecided"]

    issuer.transport.release()
    for begun in waiting:
        assert not isinstance(begun, bytes)
        assert CheckResponse.FromString(run(begun[0], waiting=begun[1])).status.code == 0
        servicer.end(begun[1])

    assert servicer.pending == 0
    assert CheckResponse.FromString(answered(servicer.begin(question))).status.code == 0


def begin_all(servicer: AuthorizationServicer, tokens: list[str]) -> list[Any]:
    """Begin a check with each token; checks that wait go on waiting while the result is kept."""
    return [servicer.begin(in_headers(GRPC, bearer(token)).SerializeToString()) for token in tokens]


def come_to(begun: list[Any]) -> list[str]:
    return [Denial(CheckResponse.FromString(one)).reason if isinstance(one, bytes) else "waits" for one in begun]


@pytest.fixture
def asking(known_keys: Verifier, clock: ManualClock) -> AuthorizationServicer:
    """Return a servicer for an issuer that does not answer questions, with room for 16 checks."""
    hanging = FakeTransport(lambda: json_response({"active": True}))
    hanging.hang()
    introspector = Introspector(ISSUER, client_id="c", client_secret="s", transport=hanging, clock=clock.clock)
    return AuthorizationServicer(
        Authorizer(known_keys, introspector=introspector, assurance=Assurance()), max_pending=16
    )


def test_no_organization_takes_all_the_places_of_checks_that_wait(
    asking: AuthorizationServicer, ec_key: SigningKey
) -> None:
    """R3."""
    flood = begin_all(asking, [ec_key.sign(m2m_claims(jti=f"{number}")) for number in range(20)])
    others = begin_all(asking, [ec_key.sign(m2m_claims(org_id=f"org_other{number}")) for number in range(4)])

    assert come_to(flood) == ["waits"] * 8 + ["OVERLOADED"] * 12
    assert come_to(others) == ["waits"] * 4


def test_made_up_kids_do_not_take_all_the_places_of_checks_that_wait(
    issuer: FakeIssuer, verifier: Verifier, ec_key: SigningKey, clock: ManualClock
) -> None:
    """R4: beside them, a good token that the issuer had to be asked about was refused."""
    verifier.warm_up()
    issuer.transport.hang()
    questions = FakeTransport(lambda: json_response({"active": True}))
    questions.hang()
    introspector = Introspector(ISSUER, client_id="c", client_secret="s", transport=questions, clock=clock.clock)
    authorizer = Authorizer(verifier, introspector=introspector, assurance=Assurance())
    servicer = AuthorizationServicer(authorizer, max_pending=100)
    made_up = begin_all(servicer, [ec_key.sign(m2m_claims(), {"kid": f"nobody-{number}"}) for number in range(150)])

    assert come_to(made_up) == ["waits"] * 50 + ["OVERLOADED"] * 100
    assert come_to(begin_all(servicer, [ec_key.sign(m2m_claims())])) == ["waits"]


def test_made_up_kids_have_room_of_their_own_however_many_checks_may_wait(
    issuer: FakeIssuer, verifier: Verifier, ec_key: SigningKey
) -> None:
    """R4."""
    verifier.warm_up()
    issuer.transport.hang()
    servicer = AuthorizationServicer(Authorizer(verifier))
    made_up = begin_all(servicer, [ec_key.sign(m2m_claims(), {"kid": f"nobody-{number}"}) for number in range(300)])

    assert come_to(made_up) == ["waits"] * 256 + ["OVERLOADED"] * 44


def test_check_that_need_not_wait_is_decided_however_many_do(
    issuer: FakeIssuer, verifier: Verifier, ec_key: SigningKey, other_key: SigningKey
) -> None:
    servicer = AuthorizationServicer(Authorizer(verifier), max_pending=1)
    known = in_headers(GRPC, bearer(ec_key.sign(m2m_claims()))).SerializeToString()
    asyncio.run(servicer.check(known, None))
    issuer.transport.hang()
    assert not isinstance(servicer.begin(in_headers(bearer(other_key.sign(m2m_claims()))).SerializeToString()), bytes)

    assert CheckResponse.FromString(answered(servicer.begin(known))).status.code == 0


def answered(begun: object) -> bytes:
    assert isinstance(begun, bytes)
    return begun


# ---- Observers ----


def test_every_decision_is_told_with_what_it_rests_on(verifier: Verifier, ec_key: SigningKey) -> None:
    decisions: list[Decision] = []
    ask = asker(Authorizer(verifier, public_methods=[PUBLIC], observers=[decisions.append]))
    good = in_headers(GRPC, bearer(ec_key.sign(m2m_claims())))
    for question in (good, good, in_headers(GRPC), in_headers(path=PUBLIC), b"\xff"):
        ask(question)

    assert [(one.verdict, one.evidence.source, one.evidence.principal.org_id) for one in decisions] == [
        ("allowed", "signature", ORG),
        ("allowed", "cache", ORG),
        ("denied", "none", ""),
        ("allowed", "public", ""),
        ("denied", "none", ""),
    ]
    assert all(0 <= one.seconds < 60 for one in decisions)


# ---- Whatever may come ----

keys = st.one_of(st.sampled_from(["authorization", "Authorization", "content-type", ":path", "x-org-id"]), st.text())
header_texts = st.one_of(
    st.text(), st.from_regex(r"Bearer [A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}", fullmatch=True)
)
paths = st.one_of(st.text(), st.sampled_from([GRPC_PATH, "/", "/whoami?x"]), st.from_regex(r"/[ -~]*", fullmatch=True))


@st.composite
def questions(draw: st.DrawFn) -> CheckRequest:
    question = CheckRequest()
    http = question.attributes.request.http
    http.path = draw(paths)
    http.method = draw(st.text())
    http.body = draw(st.text())
    http.size = draw(st.integers(-(2**63), 2**63 - 1))
    http.headers.update(draw(st.dictionaries(keys, header_texts, max_size=5)))
    for key, value, raw in draw(st.lists(st.tuples(keys, header_texts, st.binary()), max_size=5)):
        http.header_map.headers.add(key=key, value=value, raw_value=raw)
    question.attributes.context_extensions.update(draw(st.dictionaries(st.text(), st.text(), max_size=2)))
    return question


@given(st.binary())
def test_no_bytes_open_the_door(ask: Ask, body: bytes) -> None:
    response = ask(body)

    assert is_sound(response)
    assert response.status.code != 0


@given(questions())
def test_no_question_without_a_good_token_opens_the_door(ask: Ask, question: CheckRequest) -> None:
    # No generator of text finds the name of the public method.
    response = ask(question)

    assert is_sound(response)
    assert response.status.code != 0


@given(questions(), st.data())
def test_no_bad_token_opens_the_door(
    ask: Ask, bad_tokens: list[str], question: CheckRequest, data: st.DataObject
) -> None:
    http = question.attributes.request.http
    _, credentials = bearer(data.draw(st.sampled_from(bad_tokens)))
    http.headers["authorization"] = credentials
    http.header_map.headers.add(key="authorization", raw_value=credentials.encode())
    damaged = bytearray(question.SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    response = ask(bytes(damaged))

    assert is_sound(response)
    assert response.status.code != 0


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=6), paths)
def test_good_token_never_lets_a_trusted_name_through(
    ask: Ask, known_keys: Verifier, token: str, others: list[tuple[str, str]], path: str
) -> None:
    question = in_headers(*[(key, value) for key, value in others if key.lower() != "authorization"], path=path)
    question.attributes.request.http.headers["authorization"] = f"Bearer {token}"
    response = ask(question)

    assert is_sound(response)
    if response.status.code == 0:
        decided = {option.header.key for option in response.ok_response.headers}
        decided |= set(response.ok_response.headers_to_remove)
        trusted = Authorizer(known_keys).trusted
        assert decided == {*trusted.removed, *trusted.prefixed}


@given(
    st.dictionaries(st.from_regex(r"[a-z-]{1,20}", fullmatch=True), st.from_regex(r"[ -~]{1,60}", fullmatch=True)),
    paths,
)
def test_both_forms_of_headers_have_the_same_verdict(ask: Ask, headers: dict[str, str], path: str) -> None:
    assert ask(in_headers(*headers.items(), path=path)) == ask(in_header_map(*headers.items(), path=path))


@pytest.mark.parametrize(
    "credentials",
    [
        "Bearer  {}",
        " Bearer {}",
        "Bearer {} ",
        "Bearer\t{}",
        "Bearer {},",
        "Bearer {}\n",
        "Bearer {}\x00",
        "Bearer {}\xff",
        "Bearer {0},Bearer {0}",
        "Basic {}",
        "{}",
        "Bearer",
        "Bearer ",
        "",
    ],
)
def test_credentials_that_are_not_quite_right_are_refused(ask: Ask, token: str, credentials: str) -> None:
    denial = Denial(ask(in_header_map(GRPC, ("authorization", credentials.format(token)))))

    assert (denial.code, denial.reason) == (16, "TOKEN_MALFORMED")


# ---- A policy ----

PARTNER = "spiffe://partner.example/job"
POLICY = {
    "name": "p",
    "deny_rules": [{"name": "no-slow", "request": {"headers": [{"key": "x-mode", "values": ["slow", "a,b"]}]}}],
    "allow_rules": [
        {"name": "ledger", "source": {"organizations": [ORG]}, "request": {"paths": [GRPC_PATH]}},
        {"name": "partner", "source": {"principals": [PARTNER]}},
        {"name": "by-tls", "source": {"principals": [""]}, "request": {"paths": ["/by.Tls/*"]}},
    ],
    "public": ["/public.Service/Call"],
    "organizations": {ORG: {"tenant": "tenant-7"}},
}


class Watched:
    """A servicer with a policy, and the last decision that its observer got."""

    def __init__(self, verifier: Verifier, policy: Policy | None = None, **changes: object) -> None:
        self.decisions: list[Decision] = []
        policy = policy or Policy.from_document({**POLICY, **changes})
        self.authorizer = Authorizer(verifier, policy=policy, observers=[self.decisions.append])
        self._servicer = AuthorizationServicer(self.authorizer)

    def ask(self, question: CheckRequest) -> CheckResponse:
        return CheckResponse.FromString(asyncio.run(self._servicer.check(question.SerializeToString(), None)))


@pytest.fixture
def watched(known_keys: Verifier) -> Watched:
    return Watched(known_keys)


@each_form
def test_policy_allows_and_tells_the_tenant(watched: Watched, token: str, form: Form) -> None:
    response = watched.ask(form(GRPC, bearer(token), ("x-org-tenant", "forged")))

    headers = {option.header.key: option.header.value for option in response.ok_response.headers}
    assert (response.status.code, headers["x-org-id"], headers["x-org-tenant"]) == (0, ORG, "tenant-7")
    assert [decision.evidence.rule for decision in watched.decisions] == ["ledger"]


@each_form
@pytest.mark.parametrize(
    ("headers", "path", "rule"),
    [
        pytest.param([], "/other.Service/Call", "", id="not-allowed"),
        pytest.param([("x-mode", "slow")], GRPC_PATH, "no-slow", id="denied"),
        pytest.param([("x-mode", "a"), ("x-mode", "b")], GRPC_PATH, "no-slow", id="denied-by-two-headers"),
    ],
)
def test_policy_refuses(
    watched: Watched, token: str, form: Form, *, headers: list[tuple[str, str]], path: str, rule: str
) -> None:
    denial = Denial(watched.ask(form(GRPC, bearer(token), *headers, path=path)))

    assert (denial.code, denial.http_status, denial.reason) == (7, 403, "POLICY_DENIED")
    assert (denial.body, "no-slow" in str(denial.headers)) == ("Permission denied", False)
    assert [decision.evidence.rule for decision in watched.decisions] == [rule]


@each_form
def test_who_lacks_a_declared_scope_is_told_which(known_keys: Verifier, token: str, form: Form) -> None:
    protos = Protos(
        {GRPC_PATH: Access(scopes=(frozenset({"ledger:close", "ledger:write"}), frozenset({"admin"})))}, "api"
    )
    watched = Watched(known_keys, Policy(Document({"name": "p"}), protos))

    denial = Denial(watched.ask(form(GRPC, bearer(token))))

    challenge = 'Bearer realm="api", error="insufficient_scope", scope="ledger:close ledger:write"'
    assert (denial.code, denial.reason, denial.headers["www-authenticate"]) == (7, "INSUFFICIENT_SCOPE", challenge)
    assert [decision.evidence.rule for decision in watched.decisions] == [f"proto:{GRPC_PATH}"]


def test_suspended_organization_is_refused(known_keys: Verifier, token: str) -> None:
    watched = Watched(known_keys, organizations={ORG: {"status": "suspended"}})

    assert Denial(watched.ask(in_headers(GRPC, bearer(token)))).reason == "ORGANIZATION_SUSPENDED"


def metered(burst: int) -> dict[str, object]:
    return {"quotas": {"basic": {"requests_per_second": 0.5, "burst": burst}}, "default_quota": "basic"}


@each_form
def test_organization_over_its_quota_is_refused(known_keys: Verifier, token: str, form: Form) -> None:
    watched = Watched(known_keys, **metered(1))
    question = form(GRPC, bearer(token))
    response = watched.ask(question)

    denial = Denial(watched.ask(question))

    assert response.dynamic_metadata["limit"] == {"requests_per_unit": 30, "unit": "MINUTE"}
    assert (denial.code, denial.http_status, denial.reason) == (8, 429, "QUOTA_EXCEEDED")
    assert (denial.body, denial.retry_delay, denial.headers["retry-after"]) == ("Quota exceeded", 2, "2")
    assert [decision.verdict for decision in watched.decisions] == ["allowed", "denied"]


def test_envoy_is_told_the_quota_of_the_policy_in_force(known_keys: Verifier, token: str) -> None:
    """The answer to a caller who is known is remembered."""
    watched = Watched(known_keys, **metered(5))
    question = in_headers(GRPC, bearer(token))
    before = watched.ask(question).dynamic_metadata["burst"]
    watched.authorizer.replace_policy(Policy.from_document({**POLICY, **metered(7)}))

    assert (before, watched.ask(question).dynamic_metadata["burst"]) == (5, 7)
    watched.authorizer.replace_policy(None)
    assert "burst" not in watched.ask(question).dynamic_metadata


def test_public_method_of_the_policy_needs_no_token_and_loses_a_forged_tenant(watched: Watched) -> None:
    response = watched.ask(in_headers(GRPC, ("x-org-tenant", "forged"), path="/public.Service/Call"))

    assert response.status.code == 0
    assert "x-org-tenant" in response.ok_response.headers_to_remove


@pytest.mark.parametrize(
    ("principal", "by_tls", "path", "code"),
    [
        pytest.param(PARTNER, True, "/any.Service/Call", 0, id="partner"),
        pytest.param("spiffe://stranger.example/job", True, "/any.Service/Call", 7, id="stranger"),
        pytest.param("", True, "/any.Service/Call", 7, id="tls"),
        pytest.param("", True, "/by.Tls/Call", 0, id="tls-where-it-is-enough"),
        pytest.param("", False, "/by.Tls/Call", 7, id="plain"),
        pytest.param(PARTNER, True, "/by.Tls/Call", 0, id="partner-there-too"),
    ],
)
def test_principal_is_the_one_that_envoy_has_seen(
    watched: Watched, token: str, principal: str, path: str, code: int, *, by_tls: bool
) -> None:
    question = in_headers(GRPC, bearer(token), ("x-forwarded-client-cert", f"URI={PARTNER}"), path=path)
    question.attributes.source.principal = principal
    if by_tls:
        question.attributes.tls_session.sni = "api.example"

    assert watched.ask(question).status.code == code
