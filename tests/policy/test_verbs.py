"""Rules may name HTTP methods, and a verdict on one is never taken for that on another."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from authz.call.call import MAX_ENTRIES, Call
from authz.call.principal import ANONYMOUS, Principal
from authz.call.verb import KNOWN, MAX_VERB, OVERRIDES, REGISTERED, is_verb
from authz.decisions.decision import Evidence
from authz.errors import AuthzError, ConfigError, PermissionDeniedError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.policy import Policy
from authz.policy.protos.access import Access
from authz.policy.protos.declared import Protos
from authz.runtime.flow import run
from authz.runtime.text.document import Document
from tests.policy.rulings import ruling_of

CALLER = Principal(org_id="org_a", client_id="client_a", subject="client_a")
ORDERS = {"name": "orders", "request": {"paths": ["/orders*"], "methods": ["GET", "DELETE"]}}
NO_DELETE = {"name": "no-delete", "request": {"methods": ["DELETE"]}}
READS: dict[str, Any] = {"name": "reads", "request": {"methods": ["GET"]}}


def policy(*allow: dict[str, Any], deny: tuple[dict[str, Any], ...] = (), **more: Any) -> Policy:
    return Policy.from_document({"name": "p", "deny_rules": list(deny), "allow_rules": list(allow), **more})


def request(verb: str, path: str = "/orders", *headers: tuple[str, str]) -> Call:
    return Call(method=path, metadata=headers, verb=verb)


def rule_of(found: Policy, verb: str, *headers: tuple[str, str]) -> str | None:
    ruling = ruling_of(found, request(verb, "/orders", *headers), CALLER)
    return ruling and ruling[1]


def reason(found: Policy, verb: str, *headers: tuple[str, str]) -> str:
    with pytest.raises(PermissionDeniedError) as caught:
        found.admit(request(verb, "/orders", *headers), CALLER)
    return caught.value.reason


# ---- What matches ----


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
def test_rule_matches_the_http_methods_that_it_names(verb: str) -> None:
    assert rule_of(policy(ORDERS), verb) == "orders"


@pytest.mark.parametrize("verb", ["HEAD", "OPTIONS", "POST", "PUT", "CONNECT", "PROPFIND", "GETS", "GE"])
def test_it_matches_no_other_and_get_includes_none(verb: str) -> None:
    assert rule_of(policy(ORDERS), verb) is None
    assert reason(policy(ORDERS), verb) == "policy_denied"


def test_deny_rule_names_http_methods_too() -> None:
    found = policy({"name": "all"}, deny=(NO_DELETE,))

    assert rule_of(found, "DELETE") == "no-delete"
    assert [rule_of(found, verb) for verb in ("GET", "POST", "PROPFIND")] == ["all"] * 3


def test_grpc_is_post() -> None:
    found = policy({"name": "grpc", "request": {"methods": ["POST"]}})

    assert found.admit(Call(method="/ledger.v1.Ledger/List", metadata=()), CALLER) == "grpc"


def test_http_methods_that_no_list_has_may_be_named() -> None:
    found = policy({"name": "dav", "request": {"methods": ["PROPFIND", "M-SEARCH", "X_2"]}})

    assert [rule_of(found, verb) for verb in ("PROPFIND", "M-SEARCH", "X_2")] == ["dav"] * 3


def test_every_registered_http_method_may_be_named() -> None:
    assert all(map(is_verb, REGISTERED))
    assert KNOWN < REGISTERED


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (
            ["get"],
            r"policy: allow_rules\[0\]\.request\.methods\[0\]: 'get' is not an HTTP method in capitals, such as GET$",
        ),
        (["Get"], "'Get' is not"),
        (["GET "], "'GET ' is not"),
        (["GET\n"], "is not"),
        ([""], "'' is not"),
        (["*"], r"'\*' is not"),
        (["GE*"], r"'GE\*' is not"),
        (["ＧＥＴ"], "is not"),  # noqa: RUF001 - other letters that look alike
        (["A" * (MAX_VERB + 1)], "is not"),
        (["GET", "HEAD", "GET"], "'GET' is given twice"),
        ([], "must not be empty"),
        ("GET", "must be a list"),
        (None, "must be a list"),
        ([True], "must be text"),
    ],
)
def test_what_is_no_http_method_is_an_error(methods: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policy({"name": "r", "request": {"methods": methods}})


# ---- Rules that never decide ----


def with_methods(name: str, *methods: str) -> dict[str, Any]:
    return {"name": name, "request": {"methods": list(methods)} if methods else {}}


@pytest.mark.parametrize(
    ("first", "second"),
    [(("GET", "HEAD"), ("GET",)), (("GET",), ("GET",)), ((), ("GET",)), (("HEAD", "GET"), ("GET", "HEAD"))],
)
def test_rule_whose_http_methods_an_earlier_one_has_is_an_error(first: Any, second: Any) -> None:
    with pytest.raises(ConfigError, match="rule 'b' never decides: rule 'a'"):
        policy(with_methods("a", *first), with_methods("b", *second))


@pytest.mark.parametrize(
    ("first", "second"), [(("GET",), ("GET", "HEAD")), (("GET",), ("HEAD",)), (("GET",), ()), (("HEAD",), ())]
)
def test_rule_with_another_http_method_decides(first: Any, second: Any) -> None:
    found = policy(with_methods("a", *first), with_methods("b", *second))

    assert rule_of(found, "HEAD") in ("a", "b")
    assert "b" in (rule_of(found, "HEAD"), rule_of(found, "PUT"))


# ---- What is remembered ----

CONDITIONAL = {"name": "slow", "request": {"headers": [{"key": "x-mode", "values": ["slow"]}]}}


@pytest.mark.parametrize("deny", [(), (CONDITIONAL,)], ids=["verdicts", "rules-to-try"])
@pytest.mark.parametrize("order", [("GET", "DELETE"), ("DELETE", "GET")])
def test_verdict_on_one_http_method_is_never_that_on_another(order: Any, deny: Any) -> None:
    """Also the third time, whichever of the memories has it."""
    found = policy(READS, deny=deny)

    for _ in range(3):
        for verb in order:
            assert rule_of(found, verb) == ("reads" if verb == "GET" else None)


@pytest.mark.parametrize("verb", ["GET", "PUT"])
def test_made_up_http_methods_take_the_place_of_no_others(verb: str) -> None:
    found = policy(READS, {"name": "puts", "request": {"paths": ["/orders"]}})
    assert rule_of(found, verb) is not None
    size = len(found._admitted), len(found._remembered)  # noqa: SLF001 - the bound is what counts
    for number in range(1000):
        found.admit(request(f"X{number}"), CALLER)

    assert len(found._admitted) <= size[0] + 1  # noqa: SLF001 - as above
    assert len(found._remembered) <= size[1] + 1  # noqa: SLF001 - as above


def test_yes_to_one_http_method_says_nothing_of_another() -> None:
    found, organization = policy(READS), policy(READS).organization("org_a")
    found.admit(request("GET"), CALLER, organization)

    assert found.decides_alike(request("GET"), CALLER, organization)
    assert not any(found.decides_alike(request(verb), CALLER, organization) for verb in ("HEAD", "DELETE", "POST", ""))


def test_it_matters_to_no_policy_that_names_none() -> None:
    found = policy({"name": "all"})
    organization = found.organization("org_a")

    assert found.verbs == frozenset()
    for verb in ("GET", "get", "", "A" * 10_000, "\0"):
        assert (
            found.admit(request(verb, "/orders", ("x-http-method-override", "DELETE")), CALLER, organization) == "all"
        )
        assert found.decides_alike(request(verb), CALLER, organization)
    assert len(found._admitted) == 1  # noqa: SLF001 - it is the same call to such a policy


# ---- What servers may read in different ways ----


@pytest.mark.parametrize(
    "verb",
    [
        "get",
        "delete",
        "Delete",
        "",
        " ",
        "DELETE ",
        "DEL\0ETE",
        "DELETE\n",
        "GET,DELETE",
        "*",
        "É",
        "A" * 33,
        "A" * 10**7,
    ],
    ids=lambda verb: repr(verb[:10]),
)
@pytest.mark.parametrize("allow", [{"name": "all"}, READS], ids=["all", "reads"])
def test_http_method_that_no_rule_may_name_is_refused(verb: str, allow: Any) -> None:
    """Django and Flask read ``delete`` as ``DELETE``, so that the deny rule would be passed by."""
    found = policy(allow, deny=(NO_DELETE,))

    assert reason(found, verb) == "request_malformed"


@pytest.mark.parametrize(
    "header",
    [
        *OVERRIDES,
        *("X-HTTP-Method-Override", "X-Http-Method", "X-METHOD-OVERRIDE", "X_HTTP_METHOD_OVERRIDE"),
    ],
)
@pytest.mark.parametrize("value", ["DELETE", "GET", ""])
def test_header_that_may_replace_the_http_method_is_refused(header: str, value: str) -> None:
    found = policy(READS)
    assert rule_of(found, "GET") == "reads"

    # Also where a verdict on such a call is remembered.
    assert reason(found, "GET", ("accept", "*/*"), (header, value)) == "request_malformed"
    assert rule_of(found, "GET", ("x-http-methods", value), ("x-method", value)) == "reads"


def test_every_spelling_of_these_headers_is_known() -> None:
    names = {re.sub("_", "-", name) for name in OVERRIDES}

    assert names == {"x-http-method-override", "x-http-method", "x-method-override"}
    assert len(set(OVERRIDES)) == 2**3 + 2**2 + 2**2


def test_longest_headers_are_looked_through_at_once() -> None:
    found, headers = policy(READS), tuple((f"x-header-{number}", "v" * 500) for number in range(MAX_ENTRIES))
    seconds = []
    for _ in range(20):
        began = time.thread_time()
        found.admit(request("GET", "/orders", *headers), CALLER)
        seconds.append(time.thread_time() - began)

    assert min(seconds) < 0.002


# ---- With the judge ----

HEALTH = "/health"


@pytest.fixture
def ask(verifier: Verifier, sign: Callable[..., str]) -> Callable[..., Any]:
    token = sign()

    def ask(found: Policy, call: Call, **options: Any) -> Any:
        """Return who calls, or the reason for which the call is refused."""
        entries = [*call.metadata, ("authorization", f"Bearer {token}")]
        evidence, judge = Evidence(), Authorizer(verifier, policy=found, **options)
        try:
            return run(judge.authorize(call._replace(metadata=entries), evidence))
        except AuthzError as error:
            return error.reason

    return ask


def test_public_methods_are_public_by_every_http_method(ask: Callable[..., Any]) -> None:
    """They go by the path alone, as they always did."""
    found = policy(READS, public=[HEALTH])

    for verb in ("GET", "DELETE", "get", ""):
        assert ask(found, request(verb, HEALTH)) is ANONYMOUS
    assert ask(found, request("GET", HEALTH, ("x-http-method", "DELETE"))) is ANONYMOUS
    assert ask(found, request("GET")) is not ANONYMOUS
    assert ask(found, request("DELETE")) == "policy_denied"
    assert ask(found, request("delete")) == "request_malformed"


def test_without_a_token_nothing_is_said_of_the_http_method(verifier: Verifier) -> None:
    with pytest.raises(AuthzError) as caught:
        run(Authorizer(verifier, policy=policy(READS)).authorize(request("delete")))

    assert caught.value.reason == "token_missing"


def test_what_a_proto_declares_goes_for_every_http_method() -> None:
    """A GET of Connect calls the same method; a file beside the .proto may still deny it."""
    document: dict[str, Any] = {"name": "p", "deny_rules": [{"name": "post-only", "request": {"methods": ["GET"]}}]}
    protos = Protos({"/a.S/Get": Access(scopes=(frozenset(["r"]),))}, "api")
    reader = Principal(org_id="org_a", client_id="c", subject="c", scopes=frozenset(["r"]))
    alone, narrowed = Policy(Document({"name": "p"}), protos), Policy(Document(document), protos)

    for verb in ("POST", "GET", "get"):
        assert alone.admit(request(verb, "/a.S/Get"), reader) == "proto:/a.S/Get"
        with pytest.raises(PermissionDeniedError):
            alone.admit(request(verb, "/a.S/Get"), CALLER)
    assert ruling_of(narrowed, request("POST", "/a.S/Get"), reader) == ("allow_rules", "proto:/a.S/Get")
    assert ruling_of(narrowed, request("GET", "/a.S/Get"), reader) == ("deny_rules", "post-only")
    assert ruling_of(narrowed, request("get", "/a.S/Get"), reader) is None


def test_files_allow_rule_narrows_what_a_proto_declares() -> None:
    protos = Protos({"/a.S/Get": Access()}, "api")
    found = Policy(Document({"name": "p", "allow_rules": [{"name": "post", "request": {"methods": ["POST"]}}]}), protos)

    assert ruling_of(found, request("POST", "/a.S/Get"), CALLER) == ("allow_rules", "post")
    assert ruling_of(found, request("GET", "/a.S/Get"), CALLER) is None
