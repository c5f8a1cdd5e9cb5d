"""Quotas of the policy file: who has which, and when the judge counts a call."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authz.call.call import Call
from authz.call.metadata import TrustedMetadata
from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal
from authz.call.requirements import Assurance
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, ConfigError, PeerUnknownError, ResourceExhaustedError
from authz.issuer.introspection import Introspector
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.judge.mesh import MeshPeers
from authz.organizations.quota import Quota
from authz.policy import Policy
from authz.policy.explain.explanation import explain
from authz.runtime.flow import run
from tests.doubles import ISSUER, ORG, FakeTransport, ManualClock, json_response

METHOD, PUBLIC, DENIED, TLS_ONLY = "/a.B/C", "/a.B/Public", "/a.B/Denied", "/a.B/TlsOnly"
STRANGER = "org_01JYSTRANGER00000000000000"
BASIC = {"requests_per_second": 10, "burst": 2}


def policy(quotas: Any = None, **more: Any) -> Policy:
    """Return a policy with the plan ``basic`` for everybody, unless it says otherwise."""
    return Policy.from_document(
        {
            "name": "p",
            "deny_rules": [{"name": "denied", "request": {"paths": [DENIED]}}],
            "allow_rules": [
                {"name": "tls", "source": {"principals": [""]}, "request": {"paths": [TLS_ONLY]}},
                {"name": "all", "request": {"paths": [METHOD]}},
            ],
            "public": [PUBLIC],
            "quotas": quotas or {"basic": BASIC},
            **({} if "organizations" in more else {"default_quota": "basic"}),
            **more,
        }
    )


# ---- The file ----


GOOD = """\
name: p
allow_rules: [{name: all}]
default_quota: basic
organizations:
  org_acme: {quota: gold}
quotas:
  basic: {requests_per_second: 0.5}
  gold:
    requests_per_second: 10
    burst: 20
    concurrent_streams: 5
"""


@pytest.fixture
def error_of(tmp_path: Path) -> Callable[[str], str]:
    def find(text: str) -> str:
        file = tmp_path / "policy.yaml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            Policy.from_file(file)
        return str(caught.value).removeprefix(str(file))

    return find


def test_each_organization_has_its_plan_and_all_others_the_default(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD.replace("quota: gold", "quota: gold}\n  org_b: {groups: []"), "utf-8")

    found = Policy.from_file(tmp_path / "p.yaml")

    basic = Quota("basic", 0.5, 1)
    assert found.organization("org_acme").quota == Quota("gold", 10.0, 20, 5)
    assert [found.organization(org_id).quota for org_id in ("org_b", STRANGER)] == [basic, basic]


def test_without_a_default_others_have_none() -> None:
    found = policy(organizations={ORG: {"quota": "basic"}, "org_b": {}})

    assert [found.organization(org_id).quota for org_id in ("org_b", STRANGER)] == [None, None]


@pytest.mark.parametrize(("rate", "burst"), [(10, 10), (2.5, 3), (0.01, 1)])
def test_by_default_a_burst_is_a_second_of_calls_and_at_least_one(rate: float, burst: int) -> None:
    found = policy({"basic": {"requests_per_second": rate}}).organization(STRANGER).quota

    assert found is not None
    assert found.burst == burst


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("{quota: gold}", "{quota: gld}", ":5: unknown quota 'gld'; did you mean 'gold'?"),
        ("default_quota: basic", "default_quota: zzz", ":3: unknown quota 'zzz'; quotas lacks it"),
        ("{quota: gold}", "{}", ":8: no organization has the quota 'gold'; give it to one, or set default_quota"),
        ("{requests_per_second: 0.5}", "{}", ":7: quota 'basic' limits nothing; give requests_per_second, conc"),
        ("{requests_per_second: 0.5}", "{burst: 5}", ":7: burst needs requests_per_second, at which it is"),
        ("{requests_per_second: 0.5}", "{requests_per_second: 0}", ":7: must be a number from 0.001 to 1e+06"),
        ("{requests_per_second: 0.5}", "{requests_per_seconds: 5}", ":7: unknown key 'requests_per_seconds'; did you"),
        ("burst: 20", "burst: 2.5", ":10: must be a whole number from 1 to 1000000"),
        ("burst: 20", "burst: true", ":10: must be a whole number from 1 to 1000000"),
        ("concurrent_streams: 5", "concurrent_streams: 0", ":11: must be a whole number from 1 to 1000000"),
    ],
)
def test_the_line_and_the_remedy_are_named(error_of: Callable[[str], str], old: str, new: str, error: str) -> None:
    assert GOOD.count(old) == 1

    assert error_of(GOOD.replace(old, new)).startswith(error)


WITHOUT_LIBRARY = """\
import sys
sys.modules["pyrate_limiter"] = None
from authz.policy import Policy
try:
    print(Policy.from_file("p.json").organization("o").quota)
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (BASIC, "p.json:1: requests_per_second needs the extra 'policy': pip install 'grpc-org-authz[policy]'"),
        ({"concurrent_streams": 5}, str(Quota("basic", concurrent_streams=5))),
    ],
)
def test_only_rates_need_the_library(tmp_path: Path, plan: Any, said: str) -> None:
    document = {"name": "p", "allow_rules": [{"name": "all"}], "quotas": {"basic": plan}, "default_quota": "basic"}
    (tmp_path / "p.json").write_text(json.dumps(document), encoding="utf-8")

    program = [sys.executable, "-c", WITHOUT_LIBRARY]
    result = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)

    assert result.stdout.strip() == said


def test_explanations_name_the_plan() -> None:
    assert explain(policy(), Call(METHOD, ()), ANONYMOUS).quota == "basic"
    assert explain(policy({"b": BASIC}, organizations={ORG: {"quota": "b"}}), Call(METHOD, ()), ANONYMOUS).quota == ""


# ---- The judge ----


class Asked:
    """An authorizer, and its caller."""

    def __init__(self, authorizer: Authorizer, token: str) -> None:
        self.authorizer, self.token, self.evidence = authorizer, token, Evidence()

    def ask(self, method: str = METHOD, token: str | None = None, **call: Any) -> str:
        """Return the reason why a call is refused, or ``""``."""
        metadata = call.pop("metadata", [("authorization", f"Bearer {token or self.token}")])
        self.evidence = Evidence()
        try:
            run(self.authorizer.authorize(Call(method=method, metadata=metadata, **call), self.evidence))
        except AuthzError as error:
            return error.reason
        return ""

    def use_up(self, token: str | None = None) -> None:
        while not self.ask(token=token):
            pass


@pytest.fixture
def new_asked(verifier: Verifier, sign: Callable[..., str]) -> Callable[..., Asked]:
    return lambda policy, **options: Asked(Authorizer(verifier, policy=policy, **options), sign())


@pytest.fixture
def asked(new_asked: Callable[..., Asked]) -> Asked:
    return new_asked(policy())


def test_an_organization_has_its_quota_and_no_more(asked: Asked, clock: ManualClock) -> None:
    assert [asked.ask() for _ in range(3)] == ["", "", "quota_exceeded"]
    assert (asked.evidence.quota, asked.evidence.rule) == (Quota("basic", 10.0, 2), "all")
    clock.advance(0.1)
    assert asked.ask() == ""


def test_it_is_the_organizations_whichever_token_and_method(asked: Asked, sign: Callable[..., str]) -> None:
    asked.ask(token=sign(client_id="client_a", sub="client_a", jti="a"))
    asked.ask(token=sign(client_id="client_b", sub="client_b", jti="b"))

    assert asked.ask() == "quota_exceeded"


def test_one_organization_does_not_use_up_anothers(asked: Asked, sign: Callable[..., str]) -> None:
    asked.use_up(sign(org_id=STRANGER))

    assert asked.ask() == ""


def test_call_that_is_refused_anyway_uses_up_nothing(
    asked: Asked, sign: Callable[..., str], other_key: SigningKey, claims: Callable[..., Any], clock: ManualClock
) -> None:
    """An outsider cannot use up what is not its own: with no token, a forged one, an old one."""
    expired = sign(exp=clock.now - 60, iat=clock.now - 360)
    refused = {
        "token_missing": {"metadata": ()},
        "token_malformed": {"token": "nonsense"},
        "key_not_found": {"token": other_key.sign(claims())},
        "signature_invalid": {"token": sign()[:-8] + "AAAAAAAA"},
        "token_expired": {"token": expired},
        "policy_denied": {"method": DENIED},
    }

    reasons = [asked.ask(**{"method": METHOD, **how}) for how in refused.values() for _ in range(5)]

    expected = [reason for reason in refused for _ in range(5)]
    # Looked up with the first keys and twice more, and then not again for a while.
    expected[13:15] = ["key_undecided"] * 2
    assert reasons == expected
    assert asked.evidence.quota is None
    assert [asked.ask() for _ in range(3)] == ["", "", "quota_exceeded"]


def test_a_suspended_organization_is_told_so_and_not_that_it_calls_too_much(asked: Asked) -> None:
    asked.use_up()
    asked.authorizer.replace_policy(policy(organizations={ORG: {"status": "suspended", "quota": "basic"}}))

    assert asked.ask() == "organization_suspended"


def test_calls_of_public_methods_are_not_counted(asked: Asked) -> None:
    assert [asked.ask(PUBLIC) for _ in range(5)] == [""] * 5
    assert asked.evidence.quota is None
    assert asked.ask() == ""


def test_a_call_that_must_be_asked_about_twice_is_counted_once(asked: Asked) -> None:
    """Whether a rule matches is known from the handler's context only."""
    call = Call(method=TLS_ONLY, metadata=[("authorization", f"Bearer {asked.token}")])
    for _ in range(2):
        with pytest.raises(PeerUnknownError):
            run(asked.authorizer.authorize(call))
        run(asked.authorizer.authorize(call._replace(peer=Peer(principals=("",)))))

    with pytest.raises(ResourceExhaustedError):
        run(asked.authorizer.authorize(call._replace(peer=Peer(principals=("",)))))


def test_caller_that_a_proxy_names_is_counted_too(new_asked: Callable[..., Asked], clock: ManualClock) -> None:
    asked = new_asked(policy(), trust=MeshPeers(unix_socket=True))
    named = Principal(org_id=ORG, client_id="client_a", subject="client_a", expires_at=clock.now + 60)
    by_proxy = {"metadata": TrustedMetadata().entries(named), "peer": Peer(is_unix_socket=True)}

    assert [asked.ask(**by_proxy) for _ in range(3)] == ["", "", "quota_exceeded"]
    assert asked.ask(peer=Peer()) == "quota_exceeded"


def test_counts_survive_another_policy_where_the_rate_stays(asked: Asked) -> None:
    asked.use_up()

    asked.authorizer.replace_policy(policy({"gold": {**BASIC, "concurrent_streams": 5}}, default_quota="gold"))
    assert asked.ask() == "quota_exceeded"
    asked.authorizer.replace_policy(policy({"basic": {**BASIC, "burst": 3}}))
    assert [asked.ask() for _ in range(4)] == ["", "", "", "quota_exceeded"]
    asked.authorizer.replace_policy(None)
    assert asked.ask() == ""


# ---- The issuer ----


@pytest.fixture
def endpoint() -> FakeTransport:
    return FakeTransport(lambda: json_response({"active": True}))


@pytest.fixture
def inquiring(new_asked: Callable[..., Asked], endpoint: FakeTransport, verifier: Verifier) -> Asked:
    """Return an authorizer that asks the issuer about every call."""
    credentials = {"client_id": "client_api", "client_secret": "secret"}
    introspector = Introspector(ISSUER, **credentials, transport=endpoint, clock=verifier.clock)
    return new_asked(policy(), introspector=introspector, assurance=Assurance())


def test_an_organization_over_its_quota_does_not_make_us_ask_the_issuer(
    inquiring: Asked, endpoint: FakeTransport
) -> None:
    assert [inquiring.ask() for _ in range(5)] == ["", "", *["quota_exceeded"] * 3]
    assert endpoint.fetches == 2


def test_a_token_that_the_issuer_has_withdrawn_uses_up_nothing(
    inquiring: Asked, endpoint: FakeTransport, sign: Callable[..., str]
) -> None:
    endpoint.answer = lambda: json_response({"active": False})
    assert [inquiring.ask(token=sign(jti="withdrawn")) for _ in range(5)] == ["token_inactive"] * 5

    endpoint.answer = lambda: json_response({"active": True})
    assert [inquiring.ask() for _ in range(2)] == ["", ""]
