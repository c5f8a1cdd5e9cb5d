"""The interface of the page: what it answers, to whom, and what it refuses to do."""

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest

from authz import OrdersFile
from authz.call.call import Call
from authz.call.requirements import Assurance
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, InsufficientScopeError, PermissionDeniedError
from authz.issuer.introspection import Introspector
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.organizations import directory
from authz.policy import Organization, Policy
from authz.runtime.flow import run
from authz.server import admin
from authz.server.admin.activity import Activity
from authz.server.admin.app import MAX_BODY_BYTES, admin_app
from authz.server.admin.backend import Question, Source
from authz.server.admin.explain import explain
from authz.server.admin.guard import FAILURE_SECONDS, FAILURES, Secret
from authz.server.admin.naming import MAX_CHARACTERS, names_of
from authz.server.admin.one_process import OwnProcess
from authz.server.admin.slices import in_slices
from tests.decisions.samples import ACME, decision
from tests.doubles import AUDIENCE, CLIENT, ISSUER, ORG, FakeTransport, ManualClock, json_response
from tests.full_disk import room_for
from tests.marked import service_file, with_imports

SECRET = "a-secret-of-the-operator"
HOST = "127.0.0.1:9902"
ORIGIN = f"http://{HOST}"
STATIC = sorted(Path(admin.__path__[0], "static").iterdir())
PATHS = ["/", *(f"/{path.name}" for path in STATIC if path.suffix != ".html")]
READ = ["/api/about", "/api/decisions", "/api/overview", "/api/policy"]
GUARDING = ("content-security-policy", "x-content-type-options", "x-frame-options", "referrer-policy", "cache-control")
LEDGER: dict[str, Any] = {
    "name": "ledger",
    "deny_rules": [{"name": "no-import", "request": {"paths": ["*/Import"]}}],
    "allow_rules": [{"name": "readers", "source": {"scopes": ["ledger:read"]}, "request": {"paths": ["/a.B/*"]}}],
    "public": ["/health"],
    "organizations": {ORG: {"tenant": "acme"}, "org_gone": {"status": "suspended"}},
}
API = "/tests.Api/Call"
# All that the judge asks after the token.
EVERYTHING = {
    **LEDGER,
    "deny_rules": [*LEDGER["deny_rules"], {"name": "no-trials", "source": {"groups": ["trial"]}}],
    "allow_rules": [*LEDGER["allow_rules"], {"name": "api", "request": {"paths": ["/tests.Api/*"]}}],
    "groups": ["trial"],
    "quotas": {"once": {"requests_per_second": 1, "burst": 1}, "wide": {"concurrent_streams": 5}},
    "organizations": {
        **LEDGER["organizations"],
        **{org_id: {"quota": "once"} for org_id in ("org_planned", "org_busy")},
        "org_wide": {"quota": "wide"},
    },
}


class Directory(directory.Directory):
    """A directory that knows everybody, but a few otherwise."""

    def __init__(self, clock: ManualClock) -> None:
        self.asked: list[str] = []
        super().__init__(self._who_is, clock=clock.clock, jitter=lambda: 0.0)

    def _who_is(self, org_id: str) -> Organization | None:
        self.asked.append(org_id)
        if org_id == "org_unclear":
            raise directory.LookUpError("status 418", is_about_one=True)
        groups = frozenset(["trial"] if org_id == "org_trial" else [])
        found = Organization("theirs", groups, org_id == "org_closed", name="Somebody")
        return None if org_id == "org_unknown" else found


class Page:
    """The application, asked as a browser or a program asks it."""

    def __init__(self, authorizer: Authorizer, activity: Activity, **options: Any) -> None:
        self.app = admin_app(OwnProcess(authorizer, activity), **{"secret": SECRET, "pause": 0.0, **options})

    def ask(self, method: str, path: str, *, body: object = None, **headers: str) -> httpx2.Response:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def ask() -> httpx2.Response:
            transport = httpx2.ASGITransport(self.app)
            async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as client:
                return await client.request(method, path, content=content, headers=named)

        return asyncio.run(ask())

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: object, **headers: str) -> httpx2.Response:
        return self.ask("POST", path, body=body, **{"content_type": "application/json", **headers})

    def order(self, verb: str, name: str, secret: str = SECRET) -> httpx2.Response:
        return self.post("/api/orders", {"verb": verb, "id": name}, authorization=f"Bearer {secret}")

    def explain(self, **question: str) -> dict[str, Any]:
        answer = self.post("/api/explain", question)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told


@pytest.fixture
def activity(clock: ManualClock) -> Activity:
    return Activity(clock=clock.clock)


@pytest.fixture
def authorizer(verifier: Verifier, activity: Activity) -> Authorizer:
    return Authorizer(verifier, policy=Policy.from_document(LEDGER), observers=[activity])


@pytest.fixture
def everything(verifier: Verifier, activity: Activity, clock: ManualClock, tmp_path: Path) -> Iterator[Authorizer]:
    """Return a judge that asks for all there is: .proto, file, directory and quotas."""
    api, file = tmp_path / "api.binpb", tmp_path / "policy.json"
    api.write_bytes(with_imports(service_file({"Call": {"scopes": ["admin"]}, "Other": {"clients": ["c", "d"]}})))
    file.write_text(json.dumps(EVERYTHING), encoding="utf-8")
    policy = Policy.from_descriptors(api, file)
    with contextlib.closing(Directory(clock)) as asked:
        yield Authorizer(verifier, policy=policy, directory=asked, unknown_organizations="deny", observers=[activity])


@pytest.fixture
def page(authorizer: Authorizer, activity: Activity) -> Page:
    return Page(authorizer, activity)


@pytest.fixture
def new_token(ec_key: SigningKey, claims: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    """Return a function that makes a good token, with changes."""
    return lambda **changes: ec_key.sign(claims(**changes))


@pytest.fixture
def token(new_token: Callable[..., str]) -> str:
    return new_token()


def reason(authorizer: Authorizer, token: str, method: str = "/a.B/C") -> str:
    try:
        run(authorizer.authorize(Call(method=method, metadata=[("authorization", f"Bearer {token}")])))
    except AuthzError as error:
        return error.reason
    return ""


# ---- Who may look ----


@pytest.mark.parametrize(("paths", "status"), [((*PATHS, *READ), 200), (("/nowhere", "/../guard.py", "/static/"), 404)])
def test_nothing_goes_out_without_its_headers(page: Page, paths: Sequence[str], status: int) -> None:
    answers = [page.get(path) for path in paths]
    [headers] = {tuple((name, answer.headers[name]) for name in GUARDING) for answer in answers}
    answer = answers[0]
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))

    assert {answer.status_code for answer in answers} == {status}
    assert dict(headers)["x-frame-options"] == "DENY"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert policy.pop("script-src") == policy.pop("style-src") == policy.pop("connect-src") == "'self'"
    assert policy.pop("img-src") == "'self'"
    assert set(policy) == {"default-src", "form-action", "frame-ancestors", "base-uri"}
    assert set(policy.values()) == {"'none'"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers
    assert "set-cookie" not in answer.headers


def test_page_has_no_inline_code_and_names_no_other_site() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in STATIC)

    assert "<style" not in text
    assert " style=" not in text
    assert " on" + "click=" not in text
    assert "innerHTML" not in text
    assert not [word for word in text.split('"') if word.startswith(("http:", "https:")) and "w3.org" not in word]


HOSTS = {
    "127.0.0.1:9902": True,
    "localhost:9902": True,
    "LOCALHOST": True,
    "[::1]:9902": True,
    "127.0.0.2": True,
    "evil.example": False,
    "evil.example:9902": False,
    "127.0.0.1.evil.example:9902": False,
    "localhost.evil.example": False,
    "203.0.113.1:9902": False,
    "": False,
}


def test_page_answers_to_its_own_names_only(page: Page) -> None:
    answers = {host: {page.get(path, host=host).status_code for path in ["/", *READ]} for host in HOSTS}

    assert answers == {host: {200 if is_ours else 421} for host, is_ours in HOSTS.items()}


def test_name_that_is_listened_on_is_its_own(authorizer: Authorizer, activity: Activity) -> None:
    page = Page(authorizer, activity, hosts=frozenset(["admin.internal"]))

    assert page.get("/", host="Admin.Internal:9902").status_code == 200
    assert page.get("/", host="203.0.113.1").status_code == 421


def test_page_for_every_address_still_answers_to_no_name(authorizer: Authorizer, activity: Activity) -> None:
    page = Page(authorizer, activity, hosts=None)

    assert page.get("/", host="203.0.113.1:9902").status_code == 200
    assert page.get("/", host="evil.example").status_code == 421


def test_two_hosts_are_none(page: Page) -> None:
    async def ask() -> int:
        sent: list[Any] = []

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"}

        headers = [(b"host", b"127.0.0.1"), (b"host", b"evil.example")]
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
        await page.app(scope, receive, send)  # type: ignore[arg-type]
        return int(sent[0]["status"])

    assert asyncio.run(ask()) == 421


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_gets_no_answer(page: Page, site: str) -> None:
    assert {page.get(path, sec_fetch_site=site).status_code for path in READ} == {403}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": ORIGIN, "sec_fetch_site": "same-origin"}, 200),
        ({}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": f"https://{HOST}"}, 200),
        ({"origin": f"https://{HOST}.evil.example"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_only_the_page_itself_may_act(page: Page, headers: dict[str, str], status: int) -> None:
    body = {"verb": "suspend", "id": "org_x"}
    answer = page.post("/api/orders", body, authorization=f"Bearer {SECRET}", **headers)

    assert answer.status_code == status


def test_what_is_for_reading_cannot_be_written(page: Page) -> None:
    assert {page.post(path, {}).status_code for path in READ} == {405}


# ---- What it tells ----


def test_decisions_are_told_once(page: Page, activity: Activity) -> None:
    activity(decision(method="/a.B/\ud800<script>"))
    first = page.get("/api/decisions").json()
    second = page.get(f"/api/decisions?after={first['cursor']}").json()

    assert [told["method"] for told in first["decisions"]] == ["/a.B/\ud800<script>"]
    assert second["decisions"] == []
    assert page.get(f"/api/decisions?after={'x' * 5000}").status_code == 400


def test_overview_tells_who_called_and_how_the_keys_do(page: Page, activity: Activity, verifier: Verifier) -> None:
    verifier.warm_up()
    activity(decision())
    told = page.get("/api/overview").json()
    [worker] = told["workers"]

    assert told["totals"]["allowed"] == 1
    assert (told["organizations"][0]["id"], told["suspended"]) == ("org_01JYACME", [])
    assert worker["keys"][ISSUER] == {
        "is_ready": True,
        "keys": 1,
        "kids": ["ec-1"],
        "age": 0.0,
        "lasts": 3600.0,
        "error": "",
        "error_means": "",
        "fetches": 1,
        "failures": 0,
    }


def test_policy_is_told_with_hits_in_the_order_in_which_it_is_asked(page: Page, activity: Activity) -> None:
    activity(decision())
    told = page.get("/api/policy").json()

    assert [(rule["name"], rule["list"], rule["hits"]) for rule in told["rules"]] == [
        ("no-import", "deny_rules", 0),
        ("readers", "allow_rules", 1),
    ]
    assert told["rules"][1]["conditions"] == [["scopes", "ledger:read"], ["method", "/a.B/*"]]
    assert (told["organizations"], told["suspended"], told["public"]) == (2, ["org_gone"], ["/health"])


def test_what_the_proto_asks_for_is_told_between_what_denies_and_what_allows(
    everything: Authorizer, activity: Activity
) -> None:
    page = Page(everything, activity)
    for error in (InsufficientScopeError(frozenset(["admin"])), PermissionDeniedError(reason="policy_denied"), None):
        made = decision(error)
        made.evidence.rule = f"proto:{API}"
        activity(made)
    told = page.get("/api/policy").json()

    assert [(rule["name"], rule["list"], rule["hits"]) for rule in told["rules"]] == [
        ("no-import", "deny_rules", 0),
        ("no-trials", "deny_rules", 0),
        (f"proto:{API}", "proto", 3),
        ("proto:/tests.Api/Other", "proto", 0),
        ("readers", "allow_rules", 0),
        ("api", "allow_rules", 0),
    ]
    assert (told["rule_count"], told["rules"][3]["conditions"][0]) == (6, ["client", "c or d"])


def test_organizations_are_told_with_what_is_known_of_them(
    everything: Authorizer, activity: Activity, new_token: Callable[..., str]
) -> None:
    for org_id in ("org_trial", "org_planned", "org_wide"):
        activity(decision(principal=replace(ACME, org_id=org_id)))
    reason(everything, new_token(org_id="org_trial"))
    told = Page(everything, activity).get("/api/overview").json()["organizations"]

    assert {each["id"]: each["known"] for each in told} == {
        "org_trial": {"name": "Somebody", "tenant": "theirs", "groups": "trial"},
        "org_planned": {"plan": "once (1 a second, 1 at once)"},
        "org_wide": {"plan": "wide (streams: 5)"},
    }


def test_names_and_tenants_are_told_of_those_who_call_and_of_those_who_are_kept_out(
    everything: Authorizer, activity: Activity, new_token: Callable[..., str]
) -> None:
    for org_id in ("org_trial", "org_planned"):
        activity(decision(principal=replace(ACME, org_id=org_id)))
    reason(everything, new_token(org_id="org_trial"))
    everything.suspend(org_id="org_trial")
    page = Page(everything, activity)
    called = {each["organization"]: each["called"] for each in page.get("/api/decisions").json()["decisions"]}

    assert called == {"org_trial": {"name": "Somebody", "tenant": "theirs"}, "org_planned": {}}
    assert page.get("/api/overview").json()["names"] == {"org_trial": {"name": "Somebody", "tenant": "theirs"}}
    everything.resume(org_id="org_trial")
    assert page.get("/api/overview").json()["names"] == {}


def test_a_name_is_short_and_every_character_of_it_visible() -> None:
    told = names_of(Organization(name=f"a\u202eb\n{'c' * 1000}", tenant="t\x00"))

    assert told["name"].startswith(r"a\u202eb\nccc")
    assert len(told["name"]) < MAX_CHARACTERS * 2
    assert told["tenant"] == r"t\x00"


def test_policy_that_was_replaced_is_told_anew(page: Page, authorizer: Authorizer, activity: Activity) -> None:
    activity(decision())
    before = page.get("/api/policy").json()
    authorizer.replace_policy(Policy.from_document({"name": "two", "allow_rules": [{"name": "readers"}]}))
    after = page.get("/api/policy").json()
    authorizer.replace_policy(None)

    assert [(told["policy"], told["rules"][-1]["hits"]) for told in (before, after)] == [("ledger", 1), ("two", 0)]
    assert page.get("/api/policy").json() == {"policy": None}


# ---- Explaining ----


def test_token_is_explained_and_not_repeated(
    page: Page, activity: Activity, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = page.post("/api/explain", {"method": "/a.B/C", "token": f"Bearer {token}"})
    told = answer.json()

    assert (told["verdict"], told["policy"]["rule"]) == ("allowed", "readers")
    assert [(step["name"], step["outcome"]) for step in told["steps"]] == [
        ("Token", "passed"),
        ("Orders", "passed"),
        ("Policy", "passed"),
    ]
    assert (told["caller"]["organization"], told["caller"]["client"]) == (ORG, CLIENT)
    assert token.rpartition(".")[2] not in answer.text + caplog.text
    assert activity.totals()["allowed"] == 0


EXPIRED = {"exp": 1_799_999_000, "iat": 1_799_998_000}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("/a.B/C", EXPIRED), ("denied", "token_expired", "Token")),
        (("/a.B/C", {"aud": "other"}), ("denied", "claim_invalid", "Token")),
        (("/a.B/Import", {}), ("denied", "policy_denied", "Policy")),
        (("/a.B/C", {"scope": "none"}), ("denied", "policy_denied", "Policy")),
        (("/a.B/C", {"org_id": "org_gone"}), ("denied", "organization_suspended", "Policy")),
        (("/a.B/C", {"org_id": "org_out"}), ("denied", "organization_suspended", "Orders")),
        (("/a.B/C", {"cnf": {"x5t#S256": "A" * 43}}), ("undecided", "", "Token")),
        (("/health", EXPIRED), ("allowed", "", "Public method")),
        (("/a.B/C", {"org_id": "org_unknown"}), ("denied", "organization_unknown", "Organization")),
        (("/a.B/C", {"org_id": "org_unclear"}), ("undecided", "directory_unavailable", "Organization")),
        (("/a.B/C", {"org_id": "org_trial"}), ("denied", "policy_denied", "Policy")),
        (("/a.B/C", {"org_id": "org_closed"}), ("denied", "organization_suspended", "Policy")),
        ((API, {"scope": "ledger:read"}), ("denied", "insufficient_scope", "Policy")),
        ((API, {"scope": "admin"}), ("allowed", "", "Policy")),
        (("/a.B/C", {"org_id": "org_planned"}), ("allowed", "", "Quota")),
        (("/a.B/C", {"org_id": "org_busy"}), ("denied", "quota_exceeded", "Quota")),
    ],
)
def test_explanation_is_what_the_judge_would_say(
    everything: Authorizer,
    activity: Activity,
    new_token: Callable[..., str],
    call: tuple[str, dict[str, Any]],
    expected: tuple[str, str, str],
) -> None:
    method, token = call[0], new_token(**call[1])
    everything.suspend(org_id="org_out")
    reason(everything, new_token(org_id="org_busy"))
    told = Page(everything, activity).explain(method=method, token=token)

    assert (told["verdict"], told["reason"], told["steps"][-1]["name"]) == expected
    assert ("explanation" in told) == (expected[2] == "Token")
    # Only the caller's certificate is unknown here, but not to a door.
    assert expected == ("undecided", "", "Token") or reason(everything, token, method) == expected[1]


def test_steps_are_those_of_the_judge(
    everything: Authorizer, activity: Activity, new_token: Callable[..., str]
) -> None:
    told = Page(everything, activity).explain(method="/a.B/C", token=new_token(org_id="org_planned"))

    assert [step["name"] for step in told["steps"]] == ["Token", "Orders", "Organization", "Policy", "Quota"]
    assert told["steps"][2]["words"] == "Known: name Somebody, tenant theirs."
    assert told["steps"][4]["words"].startswith("The plan is once (1 a second, 1 at once).")


def test_directory_is_not_asked_about_a_name_that_anybody_may_type(
    everything: Authorizer, activity: Activity, new_token: Callable[..., str]
) -> None:
    page, typed = Page(everything, activity), {"method": "/a.B/C", "organization": "org_trial", "scopes": "ledger:read"}
    before = page.explain(**typed)
    asked_before = list(cast(Directory, everything.directories[0]).asked)
    page.explain(method="/a.B/C", token=new_token(org_id="org_trial"))
    after = page.explain(**typed)

    assert (before["verdict"], before["steps"][-1]["name"], asked_before) == ("undecided", "Organization", [])
    assert (after["verdict"], after["policy"]["rule"], after["policy"]["groups"]) == ("denied", "no-trials", ["trial"])
    assert cast(Directory, everything.directories[0]).asked == ["org_trial"]


def test_caller_may_be_named_instead(page: Page) -> None:
    told = page.explain(method="/a.B/C", organization=ORG, scopes="ledger:read other")

    assert (told["verdict"], told["steps"][0]["outcome"]) == ("allowed", "unknown")
    assert page.explain(method="/a.B/C", organization=ORG)["verdict"] == "denied"


def test_http_method_is_explained(verifier: Verifier, activity: Activity, token: str) -> None:
    rules = [{"name": "reads", "request": {"methods": ["GET"]}}]
    page = Page(Authorizer(verifier, policy=Policy.from_document({"name": "p", "allow_rules": rules})), activity)
    found = {verb: page.explain(method="/orders", verb=verb, token=token) for verb in ("GET", " DELETE ", "")}

    assert [told["verdict"] for told in found.values()] == ["allowed", "denied", "denied"]
    assert found[" DELETE "]["policy"]["rules"][0]["failed"] == ["request.methods: DELETE is not one of GET"]
    # Without one it is a call of gRPC.
    assert found[""]["policy"]["rules"][0]["failed"] == ["request.methods: POST is not one of GET"]


def test_others_are_served_while_many_rules_are_explained(verifier: Verifier) -> None:
    rules = [{"name": f"{number}", "request": {"paths": [f"/{number}"]}} for number in range(2000)]
    authorizer = Authorizer(verifier, policy=Policy.from_document({"name": "long", "allow_rules": rules}))

    async def turns() -> int:
        explaining = asyncio.create_task(explain(authorizer, Question("/a.B/C", organization=ORG)))
        turns = 0
        while not explaining.done():
            await asyncio.sleep(0)
            turns += 1
        assert (await explaining)["verdict"] == "denied"
        return turns

    assert asyncio.run(turns()) > 10


def test_without_a_policy_a_good_token_is_enough(verifier: Verifier, activity: Activity, token: str) -> None:
    page = Page(Authorizer(verifier), activity)

    assert page.explain(method="/a.B/C", token=token)["verdict"] == "allowed"


def test_issuer_is_not_asked_for_an_explanation(verifier: Verifier, activity: Activity, token: str) -> None:
    transport = FakeTransport(lambda: json_response({"active": True}))
    introspector = Introspector(ISSUER, client_id="c", client_secret="s" * 20, transport=transport)
    authorizer = Authorizer(verifier, introspector=introspector, assurance=Assurance(max_age=0))
    told = Page(authorizer, activity).explain(method="/a.B/C", token=token)
    last = told["steps"][-1]

    assert (told["verdict"], last["name"], last["outcome"]) == ("allowed", "Issuer", "unknown")
    assert transport.fetches == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b"[" * 16_000, 400),
        (b'{"method": 1}', 400),
        ({"method": ""}, 400),
        ({"method": "no-slash"}, 400),
        ({"method": "/a.B/C", "more": "x"}, 400),
        ({"method": "/a.B/C", "verb": 1}, 400),
        ({"method": "/a.B/C", "verb": "get"}, 400),
        ({"method": "/a.B/C", "verb": "G" * 33}, 400),
        ({"method": "/a.B/C", "token": "t", "organization": "org_x"}, 400),
        ({"method": "/a.B/C", "organization": "o" * 257}, 400),
        ({"method": "/a.B/C", "client": "\u00ad"}, 400),
        ({"method": "/a.B/C", "scopes": "s" * 2049}, 400),
        ({"method": "/a.B/C", "scopes": "\u00ad"}, 400),
        ({"method": "/a.B/C", "token": "t" * MAX_BODY_BYTES}, 413),
    ],
)
def test_question_that_makes_no_sense_is_refused(page: Page, body: object, status: int) -> None:
    answer = page.post("/api/explain", body)

    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_what_was_found_in_a_token_and_expected_is_told(page: Page, new_token: Callable[..., str]) -> None:
    token = new_token(aud="<b>\u202e</b>")
    answer = page.post("/api/explain", {"method": "/a.B/C", "token": token})

    assert answer.json()["explanation"] == {
        "found": 'aud is "<b>\\u202e</b>"',
        "expected": f'"{AUDIENCE}"',
        "setting": "--audience",
    }
    assert token.rpartition(".")[2] not in answer.text


def test_token_that_is_none_is_malformed(page: Page) -> None:
    assert page.explain(method="/a.B/C", token="garbage")["reason"] == "token_malformed"


# ---- Acting ----


def test_suspended_organization_is_refused_until_it_is_resumed(page: Page, authorizer: Authorizer, token: str) -> None:
    suspended, refused = page.order("suspend", ORG), reason(authorizer, token)
    resumed, let_in = page.order("resume", ORG), reason(authorizer, token)

    assert (suspended.status_code, refused) == (200, "organization_suspended")
    assert (resumed.json()["by_policy"], let_in) == (False, "")


def test_revoked_client_is_refused_until_it_is_reinstated(page: Page, authorizer: Authorizer, token: str) -> None:
    page.order("revoke", CLIENT)
    refused, told = reason(authorizer, token), page.get("/api/overview").json()["revoked"]
    page.order("reinstate", CLIENT)

    assert (refused, told, reason(authorizer, token)) == ("token_inactive", [CLIENT], "")


def test_what_the_policy_suspends_is_not_resumed_and_that_is_said(page: Page) -> None:
    assert page.order("resume", "org_gone").json()["by_policy"] is True


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer ", f"Basic {SECRET}", f"Bearer {SECRET}x", "Bearer é"])
def test_without_the_secret_nothing_is_done(page: Page, authorizer: Authorizer, shown: str) -> None:
    body = {"verb": "suspend", "id": ORG}
    headers = {"authorization": shown} if shown.isascii() else {}
    answer = page.post("/api/orders", body, **headers)

    assert (answer.status_code, authorizer.standing.suspended_organizations) == (401, set())


def test_who_shows_no_secret_has_not_guessed(page: Page) -> None:
    answers = [page.post("/api/orders", {"verb": "suspend", "id": ORG}) for _ in range(8)]

    assert {answer.status_code for answer in answers} == {401}
    assert answers[-1].json()["error"].startswith("Show the admin secret")
    assert page.order("suspend", ORG).status_code == 200


def test_without_a_configured_secret_nobody_can_act(authorizer: Authorizer, activity: Activity) -> None:
    page = Page(authorizer, activity, secret="")
    answer = page.order("suspend", ORG, "")

    assert (answer.status_code, page.get("/api/about").json()["can_act"]) == (403, False)
    assert "AUTHZ_ADMIN_SECRET" in answer.json()["error"]
    assert authorizer.standing.suspended_organizations == set()


def test_guesses_are_answered_slowly_and_the_secret_is_always_heard(page: Page, authorizer: Authorizer) -> None:
    guesses = [page.order("suspend", ORG, f"guess-{number}").status_code for number in range(FAILURES + 3)]
    refused = page.order("suspend", ORG, "another guess")
    before = authorizer.standing.suspended_organizations
    heard = [page.order("suspend", ORG).status_code for _ in range(3)]

    assert guesses == [401] * FAILURES + [429] * 3
    assert (refused.status_code, refused.headers["retry-after"], before) == (429, "2", set())
    assert heard == [200] * 3
    # Nor does a right one forgive the wrong ones before it.
    assert page.order("suspend", ORG, "another guess").status_code == 429


def test_guesses_are_forgiven_after_a_pause(clock: ManualClock) -> None:
    secret = Secret(SECRET, monotonic=clock.clock.monotonic)
    for _ in range(FAILURES + 5):
        secret.refuse(_showing("wrong"))
    early, heard = secret.refuse(_showing("wrong")), secret.refuse(_showing(SECRET))
    clock.advance(FAILURE_SECONDS)
    late = secret.refuse(_showing("wrong"))

    assert (early is not None, late is not None) == (True, True)
    assert (early and early.status_code, late and late.status_code) == (429, 401)
    assert heard is None


def _showing(secret: str) -> Any:
    from starlette.requests import Request  # noqa: PLC0415

    return Request({"type": "http", "headers": [(b"authorization", f"Bearer {secret}".encode())]})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"verb": "suspend"},
        {"verb": ["suspend"], "id": ORG},
        {"verb": "replace_policy", "id": ORG},
        {"verb": "suspend", "id": ""},
        {"verb": "suspend", "id": "two words"},
        {"verb": "suspend", "id": "x" * 257},
        {"verb": "suspend", "id": ORG, "more": 1},
        {"verb": "suspend", "id": ORG, "at": 1},
        {"verb": "suspend", "id": ORG, "kind": "client"},
        {"verb": "suspend", "id": ORG, "until": "tomorrow"},
        {"verb": "suspend", "id": ORG, "reason": "x" * 501},
        {"verb": "suspend", "id": ORG, "issued_before": 1},
        {"verb": "revoke", "id": "c", "kind": ["client"]},
    ],
)
def test_order_that_makes_no_sense_is_refused(page: Page, authorizer: Authorizer, body: object) -> None:
    answer = page.post("/api/orders", body, authorization=f"Bearer {SECRET}")

    assert (answer.status_code, authorizer.standing.suspended_organizations) == (400, set())


def test_order_says_why_who_until_when_and_about_which_tokens(page: Page) -> None:
    more = {"kind": "key", "issuer": ISSUER, "reason": "leaked", "by": "ann", "until": 4e9, "issued_before": 1e9}
    answer = page.post("/api/orders", {"verb": "revoke", "id": "kid_1", **more}, authorization=f"Bearer {SECRET}")
    page.order("suspend", ORG)
    page.order("suspend", "org_forgiven")
    page.order("resume", "org_forgiven")
    told = page.get("/api/overview").json()

    assert answer.status_code == 200, answer.text
    orders = {each["id"]: each for each in told["orders"]}
    assert {"verb": "revoke", "id": "kid_1", **more}.items() <= orders["kid_1"].items()
    assert {name: each["by"] for name, each in orders.items()} == {"kid_1": "ann", ORG: "admin page"}
    assert (told["order_count"], told["token_count"]) == (2, 0)


def test_order_about_another_issuer_is_refused_in_words(page: Page) -> None:
    body = {"verb": "revoke", "id": "c", "issuer": "https://other.example"}
    answer = page.post("/api/orders", body, authorization=f"Bearer {SECRET}")

    assert (answer.status_code, answer.json()["error"]) == (
        409,
        "issuer: 'https://other.example' is none of those whose tokens are taken here.",
    )


def test_order_that_cannot_be_kept_is_in_force_and_that_is_said(
    page: Page, authorizer: Authorizer, tmp_path: Path
) -> None:
    with OrdersFile(tmp_path / "orders", authorizer), room_for(10):
        answer = page.order("suspend", ORG)

    assert answer.status_code == 507
    assert answer.json()["error"].startswith("It is in force, but may not last: orders: ")
    assert authorizer.standing.suspended_organizations == {ORG}


# ---- What takes too long, or fails ----


class Counting:
    """A source that counts how often it is asked, and asks another."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        async def ask(*arguments: Any) -> Any:
            self.asked[name] += 1
            return await getattr(self._source, name)(*arguments)

        return ask


def test_source_is_asked_once_for_all_who_look(authorizer: Authorizer, activity: Activity) -> None:
    counting = Counting(OwnProcess(authorizer, activity))
    pause = 0.1
    app = admin_app(counting, pause=pause)
    activity(decision())

    async def look(client: httpx2.AsyncClient, number: int) -> list[int]:
        # Each has seen another part.
        cursor = f"{activity.recent().cursor.partition('-')[0]}-{number % 2}"
        asked = ("/api/overview", "/api/policy", f"/api/decisions?after={cursor}")
        answers = [await client.get(path) for path in asked for _ in range(3)]
        assert {answer.status_code for answer in answers} == {200}
        return [len(answer.json()["decisions"]) for answer in answers[-3:]]

    async def ask() -> list[list[int]]:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            return await asyncio.gather(*(look(client, number) for number in range(16)))

    began = time.monotonic()
    assert asyncio.run(ask()) == [[1] * 3, [0] * 3] * 8
    took = time.monotonic() - began
    assert counting.asked.keys() == {"overview", "policy", "decisions"}
    # Each asks three times, one after the other; 48 times all of them together.
    assert 3 <= max(counting.asked.values()) <= min(1 + took / pause, 24)


def test_what_the_page_asks_is_made_on_no_thread_that_decides(
    everything: Authorizer, activity: Activity, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    monkeypatch.setattr("authz.server.admin.slices.time.sleep", lambda _: threads.add(threading.get_ident()))
    monkeypatch.setattr(in_slices, "__defaults__", (1,))
    activity(decision())
    page = Page(everything, activity)
    for path in ("/api/decisions", "/api/overview", "/api/policy"):
        threads.clear()
        assert page.get(path).status_code == 200
        assert threads
        assert threading.get_ident() not in threads


class Failing:
    """A source of which every question fails."""

    def __getattr__(self, _name: str) -> Any:
        async def fail(*_: object) -> Any:
            raise RuntimeError("a text that nobody must see")

        return fail


def test_the_unforeseen_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(admin_app(Failing()), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            return await client.get("/api/overview")

    answer = asyncio.run(ask())

    assert (answer.status_code, answer.headers["cache-control"]) == (500, "no-store")
    assert "a text that" not in answer.text + caplog.text
