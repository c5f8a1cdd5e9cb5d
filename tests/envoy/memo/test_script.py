"""What the script remembers, for how long, and what it leaves to the server."""

import json
from collections.abc import Callable

import pytest

from authz.call.metadata import TrustedMetadata
from authz.call.verb import OVERRIDES
from authz.envoy.memo.script import NOTHING, script
from authz.envoy.v3.external_auth_pb2 import CheckResponse
from tests.envoy.memo.fake_envoy import Call, FakeEnvoy, Stream

GRPC = ("content-type", "application/grpc")
YES = CheckResponse()
YES.ok_response.headers.add().header.key = "x-org-id"
YES.ok_response.headers[0].header.value = "org_A"
YES.ok_response.headers_to_remove.extend(["x-scopes"])
ABOUT = {"organization": "org_A", "client": "c", "rule": "r"}
YES.dynamic_metadata.update(
    {
        "memo": {"seconds": 30, "generation": "g"},
        "caller": {"headers": ["x-org-id", "org_A"], "about": ABOUT, "told": json.dumps(ABOUT)},
        "organization": "org_A",
        "client": "c",
    }
)
NO = CheckResponse()
NO.status.code = 7


def call_of(
    name: str = "t",
    path: str = "/a.S/Get",
    *more: tuple[str, str],
    certificate: str | None = None,
    verb: str = "POST",
) -> Call:
    return Call([GRPC, ("authorization", f"Bearer {name}"), *more], path, certificate, verb)


class Server:
    def __init__(self) -> None:
        self.answer, self.asked = YES, 0

    def check(self, _question: bytes) -> bytes:
        self.asked += 1
        return self.answer.SerializeToString()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def envoy() -> FakeEnvoy:
    envoy = FakeEnvoy()
    envoy.load("g")
    return envoy


Make = Callable[[Call], Stream]


@pytest.fixture
def make(envoy: FakeEnvoy, server: Server) -> Make:
    def make(call: Call) -> Stream:
        stream = envoy.call(call, server.check)
        assert not stream.has_failed
        return stream

    return make


def test_a_yes_is_repeated_with_all_that_it_set_and_removed(make: Make, server: Server) -> None:
    first = make(call_of())
    second = make(call_of("t", "/a.S/Get", ("x-org-id", "org_FORGED"), ("x-scopes", "admin"), ("x-trace", "1")))

    assert server.asked == 1
    assert first.passed is not None
    assert second.passed is not None
    assert second.passed.headers == [
        *(GRPC, ("authorization", "Bearer t"), ("x-trace", "1"), ("x-org-id", "org_A")),
    ]
    assert second.passed.metadata == {"decided": True, "told": f"{json.dumps(ABOUT)} POST /a.S/Get"}


def test_the_token_goes_to_the_upstream_only_if_it_may(server: Server) -> None:
    envoy = FakeEnvoy(lambda generation: script(generation, TrustedMetadata(), remove_authorization=True))
    envoy.load("g")
    envoy.call(call_of(), server.check)
    passed = envoy.call(call_of(), server.check).passed

    assert passed is not None
    assert passed.is_repeated
    assert "authorization" not in dict(passed.headers)


def test_a_no_is_not_repeated(make: Make, server: Server) -> None:
    server.answer = NO
    make(call_of())
    make(call_of())

    assert server.asked == 2


def test_a_yes_without_a_mark_is_not_repeated(make: Make, server: Server) -> None:
    server.answer = CheckResponse()
    make(call_of())
    make(call_of())

    assert server.asked == 2


@pytest.mark.parametrize(
    "other",
    [
        call_of("u"),
        call_of("t", "/a.S/Put"),
        Call([("authorization", "Bearer t")], "/a.S/Get"),
        Call([GRPC, ("authorization", "bearer t")], "/a.S/Get"),
        Call([GRPC], "/a.S/Get"),
        call_of("t", "/a.S/Get", ("authorization", "Bearer t")),
        call_of("t", "/a.S/Get", ("content-type", "application/grpc")),
        call_of("t", "/a.S/Get?" + "x" * 2048),
        call_of("t", "/a.S/Get#"),
        call_of(certificate="c" * 16_385),
        *(call_of(verb=verb) for verb in ("GET", "HEAD", "DELETE", "post", "PROPFIND", "")),
    ],
    ids=[
        *("token", "path", "kind", "scheme", "none", "two-tokens", "two-kinds", "query", "fragment", "certificate"),
        *("get", "head", "delete", "small", "unknown", "nothing"),
    ],
)
def test_another_call_is_asked_about(make: Make, server: Server, other: Call) -> None:
    make(call_of())
    make(other)

    assert server.asked == 2


@pytest.mark.parametrize(
    "other",
    [call_of("t", "/a.S/Get?x=1"), call_of("t", "/a.S/Get", ("x-trace", "2")), call_of(certificate="c" * 16_384)],
    ids=["query", "header", "certificate"],
)
def test_a_call_like_it_is_not(make: Make, server: Server, other: Call) -> None:
    make(call_of())
    make(other)

    assert server.asked == 1


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        (call_of("t" * (4096 - len("Bearer "))), 1),
        (call_of("t" * (4097 - len("Bearer "))), 2),
        (call_of("t", "/" + "p" * 255), 1),
        (call_of("t", "/" + "p" * 256), 2),
        (call_of("t", ""), 2),
        (call_of("t,u"), 2),
        (Call([("content-type", "a,b"), ("authorization", "Bearer t")], "/a"), 2),
        *((call_of(verb=verb), 1) for verb in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")),
        *((call_of(verb=verb), 2) for verb in ("PROPFIND", "CONNECT", "get", "", "A" * 10_000)),
    ],
)
def test_what_is_too_long_or_unclear_is_always_asked_about(make: Make, server: Server, call: Call, asked: int) -> None:
    make(call)
    make(call)

    assert server.asked == asked


def test_a_yes_to_one_http_method_is_never_repeated_for_another(make: Make, server: Server) -> None:
    """Not the second time either, and the log is told of the right one."""
    told = []
    for _ in range(3):
        server.answer = YES
        get = make(call_of(verb="GET"))
        server.answer = NO
        assert make(call_of(verb="DELETE")).passed is None
        assert make(call_of(verb="POST")).passed is None
        assert get.passed is not None
        told.append(get.passed.metadata.get("told"))

    assert server.asked == 1 + 3 + 3
    assert told == [None, *[f"{json.dumps(ABOUT)} GET /a.S/Get"] * 2]


@pytest.mark.parametrize("header", OVERRIDES)
@pytest.mark.parametrize("verbs", [True, False], ids=["matter", "do-not"])
def test_header_that_may_replace_the_http_method_is_left_to_the_server_where_they_matter(
    make: Make, server: Server, header: str, *, verbs: bool
) -> None:
    server.answer = CheckResponse()
    server.answer.CopyFrom(YES)
    server.answer.dynamic_metadata.update(
        {"memo": {"seconds": 30, "generation": "g", **({"verbs": True} if verbs else {})}}
    )
    make(call_of(verb="POST"))
    assert server.asked == 1
    server.answer = NO
    overridden = make(call_of("t", "/a.S/Get", (header, "DELETE")))

    assert (overridden.passed is None, server.asked) == ((True, 2) if verbs else (False, 1))
    # The no is not remembered, and the yes still is.
    assert make(call_of(verb="POST")).is_repeated


def test_a_yes_lasts_from_the_question_for_as_long_as_the_server_says(envoy: FakeEnvoy, server: Server) -> None:
    stream = envoy.begin(call_of())
    stream.ask(server.check)
    envoy.advance(10)
    stream.end(envoy.now)
    envoy.advance(19.999)
    envoy.call(call_of(), server.check)
    assert server.asked == 1
    envoy.advance(0.002)
    envoy.call(call_of(), server.check)

    assert server.asked == 2


@pytest.mark.parametrize("seconds", [-3600, -5, 5, 3600])
def test_a_clock_that_is_set_changes_nothing_where_there_is_another(
    envoy: FakeEnvoy, make: Make, server: Server, seconds: float
) -> None:
    make(call_of())
    envoy.advance(20)
    envoy.set_clock(seconds)
    make(call_of())
    assert server.asked == 1
    envoy.advance(11)
    make(call_of())

    assert server.asked == 2


def test_all_is_forgotten_when_the_only_clock_is_set_back(server: Server) -> None:
    envoy = FakeEnvoy(has_clock=False)
    envoy.load("g")
    envoy.call(call_of(), server.check)
    envoy.advance(20)
    envoy.call(call_of("u"), server.check)
    envoy.call(call_of(), server.check)
    assert server.asked == 2
    envoy.set_clock(-5)
    envoy.call(call_of(), server.check)

    assert server.asked == 3


def test_an_answer_of_another_generation_is_not_remembered(envoy: FakeEnvoy, make: Make, server: Server) -> None:
    envoy.load("h")
    make(call_of())
    make(call_of())

    assert server.asked == 2


def test_a_new_generation_begins_empty_whatever_comes_late(envoy: FakeEnvoy, make: Make, server: Server) -> None:
    late = envoy.begin(call_of())
    late.ask(server.check)
    make(call_of("u"))
    envoy.load("g")
    late.end(envoy.now)
    make(call_of())
    make(call_of("u"))

    assert server.asked == 4


@pytest.fixture
def small(server: Server) -> Make:
    """Return what calls through an Envoy that remembers 50 answers in each half, 8 of one caller."""
    bounds = "MAX_YES, MAX_CALLS = 10000, 64"
    source = script("g", TrustedMetadata(), remove_authorization=False)
    assert bounds in source
    envoy = FakeEnvoy(lambda _: source.replace(bounds, "MAX_YES, MAX_CALLS = 50, 8"))
    return lambda call: envoy.call(call, server.check)


def test_one_caller_with_many_paths_takes_no_other_callers_place(small: Make, server: Server) -> None:
    small(call_of("other"))
    for number in range(1000):
        small(call_of("t", f"/a.S/M{number}"))
    server.asked = 0
    small(call_of("other"))
    assert server.asked == 0
    for number in range(1000):
        small(call_of("t", f"/a.S/M{number}"))

    # It is remembered for the last few at the most.
    assert server.asked >= 1000 - 8


@pytest.mark.parametrize("paths", [1, 5])
def test_all_answers_together_are_bounded(small: Make, server: Server, paths: int) -> None:
    def ask(callers: range) -> None:
        for number in callers:
            for path in range(paths):
                small(call_of(f"t{number}", f"/a.S/M{path}"))

    ask(range(50 // paths + 1))
    server.asked = 0
    small(call_of("t0", "/a.S/M0"))
    assert server.asked == 0
    ask(range(50 // paths + 1, 100 // paths + 1))
    server.asked = 0
    small(call_of("t0", "/a.S/M0"))

    assert server.asked == 1


def test_what_anybody_may_call_is_remembered_once(small: Make, server: Server) -> None:
    """Else anybody could have Envoy forget the answers to callers that are known."""
    small(call_of("known"))
    server.answer = CheckResponse()
    server.answer.CopyFrom(YES)
    server.answer.dynamic_metadata.update({"memo": {"seconds": 30, "generation": "g", "public": True}})
    server.asked = 0
    for number in range(1000):
        small(call_of(f"made-up-{number}", "/a.S/Public"))
    small(Call([GRPC], "/a.S/Public"))
    assert server.asked == 1
    small(call_of("known"))
    assert server.asked == 1
    server.answer = NO
    small(Call([GRPC], "/a.S/Get"))

    assert server.asked == 2


def test_an_answer_is_never_taken_for_that_to_another_question(envoy: FakeEnvoy, server: Server) -> None:
    first = envoy.begin(call_of("first"))
    first.ask(server.check)
    others = [envoy.begin(call_of(f"t{number}")) for number in range(1024)]
    # Refused, every one: only the first is allowed.
    first.end(envoy.now)
    for stream in others:
        assert not stream.has_failed
    for number in range(1024):
        assert not envoy.begin(call_of(f"t{number}")).is_repeated
    assert not envoy.begin(call_of("first")).is_repeated


def test_the_token_does_not_get_into_the_metadata(envoy: FakeEnvoy) -> None:
    stream = envoy.begin(call_of("secret"))

    assert "secret" not in str([dict(each) for each in stream._metadata.values()])  # noqa: SLF001 - all of it


@pytest.mark.parametrize("broken", ["replace", "remove", "dynamicMetadata", "headers", "downstreamSslConnection"])
def test_an_error_leaves_the_decision_to_the_server(server: Server, broken: str) -> None:
    """Whatever fails, and wherever: Envoy lets the request go on, to a filter that finds no mark."""
    envoy = FakeEnvoy()
    envoy.load("g")
    envoy.call(call_of(), server.check)
    machine = envoy.machine
    machine.break_function(broken)
    stream = envoy.begin(call_of())
    assert stream.has_failed
    assert not stream.is_repeated
    stream.ask(server.check)

    assert server.asked == 2


def test_the_default_repeats_nothing(server: Server) -> None:
    envoy = FakeEnvoy()
    assert script("", TrustedMetadata(), remove_authorization=False) == NOTHING
    for _ in range(2):
        envoy.call(call_of(), server.check)

    assert server.asked == 2
