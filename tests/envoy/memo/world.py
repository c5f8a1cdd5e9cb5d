"""A random world: callers, policies, orders and clocks around an Envoy that repeats answers, and two workers."""

import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.memo.mark import Memo
from authz.envoy.v3.external_auth_pb2 import CheckResponse
from authz.errors import ConfigError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.judge.orders.standing import Doubt
from authz.policy import Policy
from tests.doubles import AUDIENCE, ISSUER, NOW, FakeIssuer, ManualClock, m2m_claims
from tests.envoy.memo.fake_envoy import Call, FakeEnvoy, Stream, upstream_headers

ORGS = [f"org_{name}" for name in ("A", "B", "C", "D")]
CLIENTS = ["client_1", "client_2"]
PATHS = [
    *("/a.S/Get", "/a.S/Put", "/a.S/Get?x=1", "/b.S/Get", "/public", "/public.S/Call", "/one", "/one/two?x=/a.S/Put"),
    *("/a.S//Get", "/", "", "/a.S/" + "x" * 300, "/a.S/Get?" + "x" * 5000, "/a.S/Get#part", "*"),
]
KINDS = [
    *((("content-type", "application/grpc"),), (("content-type", "application/grpc+proto"),), ()),
    *((("content-type", "application/grpc-web+proto"),), (("content-type", "application/json"),)),
    (("content-type", "application/grpc+proto"), ("content-type", "application/grpc+proto")),
    (("content-type", "application/grpc"), ("content-type", "text/plain")),
]
MORE = [
    *((), (), (("x-mode", "slow"),), (("x-mode", "fast"),), (("x-org-id", "org_FORGED"), ("x-scopes", "admin"))),
    *((("x-http-method-override", "DELETE"),), (("x_method-override", ""),)),
]
VERBS = [*["POST"] * 9, *["GET"] * 6, *["HEAD"] * 2, "DELETE", "PROPFIND", "get", "", "G" * 33]
CERTIFICATES = [None, None, None, "cert", "c" * 40_000]
REMEMBER = 30.0

Check = Callable[[bytes], bytes]


class Worker:
    """One process that answers, as far as a test needs it."""

    def __init__(self, issuer: FakeIssuer, clock: ManualClock, policy: Policy | None) -> None:
        verifier = Verifier(
            issuer=ISSUER,
            audience=AUDIENCE,
            algorithms=["ES256"],
            transport=issuer.transport,
            clock=clock.clock,
        )
        verifier.warm_up()
        self.authorizer = Authorizer(verifier, public_methods=["/public"], policy=policy)
        self.memo = Memo(self.authorizer, REMEMBER)
        self.check = _answering(AuthorizationServicer(self.authorizer, memo=self.memo))
        # The same judge, without a mark: what it would say now.
        self.now = _answering(AuthorizationServicer(self.authorizer))

    def says(self, call: Call) -> CheckResponse:
        return CheckResponse.FromString(self.now(call.question))


def _answering(servicer: AuthorizationServicer) -> Check:
    def check(question: bytes) -> bytes:
        begun = servicer.begin(question)
        if isinstance(begun, bytes):
            return begun
        # For keys, which are there at once.
        flow, wait = begun
        try:
            while True:
                wait = flow.send(wait.future.result(timeout=0))
        except StopIteration as done:
            answer: bytes = done.value
        servicer.end(begun[1])
        return answer

    return check


class World:
    """What happens is chosen by ``seed``.

    Attributes:
        calls: how many there were, and
        repeats: how many of them were answered by Envoy alone.

    """

    def __init__(self, seed: int, keys: list[SigningKey], source: Callable[[str], str] | None = None) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - the same world on every run
        self.keys = list(keys)
        self.clock = ManualClock()
        self.issuer = FakeIssuer(*keys)
        policy = self._policy()
        self.workers = [Worker(self.issuer, self.clock, policy) for _ in range(2)]
        self.has_clock = self.chance.random() < 0.5
        self.envoy = FakeEnvoy(source, has_clock=self.has_clock)
        self._generation = 0
        self._suspended: set[str] = set()
        self._changes = 0
        self.calls = self.repeats = 0
        self._open: list[Stream] = []
        self._known: list[Call] = []
        self.tokens = [self._token() for _ in range(4)]
        for worker in self.workers:
            worker.authorizer.changes.watch(self._note)
        self.flush()

    def run(self, steps: int) -> None:
        """Let so much happen."""
        for _ in range(steps):
            roll = self.chance.random()
            if roll < 0.9:
                self._calls()
            elif roll < 0.93:
                self._change()
            elif roll < 0.97:
                self._pass_time()
            else:
                self.tokens[self.chance.randrange(4)] = self._token()

    def flush(self) -> None:
        """Have every worker and Envoy begin a new generation, in any order."""
        self._generation += 1
        name = f"run-{self._generation}"
        takers = [*(worker.memo.begin for worker in self.workers), self.envoy.load]
        self.chance.shuffle(takers)
        for take in takers:
            take(name)
            # Whatever is answered meanwhile belongs to the one or the other.
            self._any_call()
        self._check_open()

    def _note(self) -> None:
        self._changes += 1

    def _calls(self) -> None:
        call = self.chance.choice(self._known) if self._known and self.chance.random() < 0.5 else self._call()
        for _ in range(self.chance.choice((1, 2, 4))):
            self._checked(call)
            call = self._like(call)

    def _checked(self, call: Call) -> None:
        worker = self.chance.choice(self.workers)
        if self._open and self.chance.random() < 0.1:
            self._open.pop(self.chance.randrange(len(self._open))).end(self.envoy.now)
        stream = self.envoy.begin(call)
        self.calls += 1
        self.check(stream)
        stream.ask(worker.check)
        if self.chance.random() < 0.1:
            self._open.append(stream)
        else:
            stream.end(self.envoy.now)
        if stream.passed is not None:
            self._known = [*self._known[-7:], call]

    def _like(self, call: Call) -> Call:
        """Return a call that Envoy may take for the same one: what differs is chosen by the caller."""
        chance = self.chance
        credentials = [each for each in call.headers if each[0] == "authorization"]
        kind = [each for each in call.headers if each[0] == "content-type"]
        if chance.random() < 0.3:
            kind = list(chance.choice(KINDS))
        path = call.path
        if chance.random() < 0.2:
            path = path.partition("?")[0] + chance.choice(("", "?", "?y=2", "?" + "y" * 3000, "??", "#"))
        certificate = chance.choice(CERTIFICATES) if chance.random() < 0.3 else call.certificate
        verb = chance.choice(VERBS) if chance.random() < 0.3 else call.verb
        return Call([*kind, *chance.choice(MORE), *credentials], path, certificate, verb)

    def check(self, stream: Stream) -> None:
        """Check the promise: what Envoy repeats, every worker says now, with the same headers."""
        assert not stream.has_failed, "the script failed"
        passed = stream.passed
        if passed is None or not passed.is_repeated:
            return
        self.repeats += 1
        for worker in self.workers:
            said = worker.says(stream.call)
            assert said.status.code == 0, f"Envoy repeats a yes for {stream.call}, and a worker says {said}"
            assert passed.headers == upstream_headers(stream.call, said)
            fields = said.dynamic_metadata.fields
            about, verb, path = passed.metadata["told"].rsplit(" ", 2)
            assert (verb, path) == (stream.call.verb, stream.call.path.partition("?")[0])
            told = json.loads(about)
            assert told.get("organization", "") == fields["organization"].string_value
            assert told.get("client", "") == fields["client"].string_value

    def _check_open(self) -> None:
        # Answers to requests that began before, of which some come only now.
        self.chance.shuffle(self._open)
        while self._open and self.chance.random() < 0.7:
            self._open.pop().end(self.envoy.now)

    def _any_call(self) -> None:
        """Make a call of which nothing is promised: what has changed is not in force everywhere, or not flushed yet."""
        if self.calls and self.chance.random() < 0.7:
            worker = self.chance.choice(self.workers)
            stream = self.envoy.begin(self._call())
            stream.ask(worker.check)
            stream.end(self.envoy.now)

    def _change(self) -> None:
        """Change something at one worker after the other, and then have Envoy forget."""
        change, before = self._a_change(), self._changes
        for worker in self.chance.sample(self.workers, 2):
            self._any_call()
            change(worker)
            self._any_call()
        # Whoever changes the judge need not know that Envoy remembers.
        if self._changes > before:
            self.flush()

    def _a_change(self) -> Callable[[Worker], object]:  # noqa: PLR0911 - one for each kind
        chance, org, client = self.chance, self.chance.choice(ORGS), self.chance.choice(CLIENTS)
        kind = chance.choice(("policy", "policy", "suspend", "suspend", "revoke", "token", "older", "key", "doubt"))
        match kind:
            case "policy":
                policy = self._policy()
                return lambda worker: worker.authorizer.replace_policy(policy)
            case "suspend" if org in self._suspended:
                self._suspended.discard(org)
                return lambda worker: worker.authorizer.resume(org_id=org)
            case "suspend":
                self._suspended.add(org)
                until = self._until()
                return lambda worker: worker.authorizer.suspend(org_id=org, until=until)
            case "revoke":
                until = self._until()
                return lambda worker: worker.authorizer.revoke(client_id=client, until=until)
            case "token":
                name = f"jti-{chance.randrange(40)}"
                return lambda worker: worker.authorizer.revoke(token_id=name)
            case "older":
                before = self.clock.now - chance.choice((0, 60))
                return lambda worker: worker.authorizer.revoke(org_id=org, issued_before=before)
            case "key":
                # The same for every worker: what they disagree about, one of them may say and the other not.
                self.issuer.keys = [chance.choice(self.keys)]
                return self._look_for_keys
            case _:
                doubt = Doubt("store", refuses=chance.random() < 0.3)
                return lambda worker: worker.authorizer.standing.be_in_doubt(doubt)

    def _look_for_keys(self, worker: Worker) -> None:
        # The server looks for new keys again and again, also while no call comes.
        self.clock.advance(300)
        self.envoy.advance(300)
        worker.authorizer.verifier.warm_up()

    def _until(self) -> float | None:
        return self.chance.choice((None, self.clock.now + 20))

    def _pass_time(self) -> None:
        seconds = self.chance.choice((0.5, 2, 5, 15, 29, 31))
        self.clock.advance(seconds)
        self.envoy.advance(seconds)
        if self.chance.random() < 0.2:
            if not self.has_clock:
                # The script notices by the request before.
                self.envoy.begin(Call([("authorization", "Bearer x")], "/"))
            self.envoy.set_clock(self.chance.choice((-3600, -31, 31, 3600)))

    def _token(self) -> str:
        chance = self.chance
        more: dict[str, Any] = {
            "org_id": chance.choice(ORGS),
            "client_id": (client := chance.choice(CLIENTS)),
            "sub": client,
            "scope": chance.choice(("", "read", "read write", "write")),
            "jti": f"jti-{chance.randrange(40)}",
            "iat": int(self.clock.now) - chance.choice((0, 30, 120)),
            "exp": int(self.clock.now) + chance.choice((-20, 2, 20, 300, 600, 600)),
        }
        if chance.random() < 0.1:
            more["cnf"] = {"x5t#S256": "A" * 43}
        key = chance.choice(self.keys)
        return key.sign(m2m_claims(self.clock.now or NOW, **more))

    def _call(self) -> Call:
        chance = self.chance
        scheme = chance.choice(("Bearer", "Bearer", "Bearer", "bearer"))
        credential = ("authorization", f"{scheme} {chance.choice(self.tokens)}")
        credentials: list[tuple[str, str]] = [credential]
        roll = chance.random()
        if roll < 0.05:
            credentials = []
        elif roll < 0.1:
            credentials = [credential, credential]
        elif roll < 0.13:
            credentials = [("authorization", chance.choice(("", "Bearer a,b", "Basic YTpi", "Bearer " + "x" * 9000)))]
        headers = [*chance.choice(KINDS if roll < 0.5 else KINDS[:3]), *chance.choice(MORE), *credentials]
        path = chance.choice(PATHS if roll < 0.5 else PATHS[:5])
        return Call(headers, path, chance.choice(CERTIFICATES), chance.choice(VERBS))

    def _policy(self) -> Policy:
        while True:
            # Some have rules that could never decide, which is an error.
            with contextlib.suppress(ConfigError):
                return Policy.from_document(self._document())

    def _document(self) -> dict[str, Any]:
        chance = self.chance

        organizations: dict[str, Any] = {}
        for org in ORGS:
            about = {
                **({"tenant": f"tenant-{org[-1]}"} if chance.random() < 0.4 else {}),
                **({"groups": ["gold"]} if chance.random() < 0.4 else {}),
                **({"quota": "metered"} if chance.random() < 0.15 else {}),
                **({"status": "suspended"} if chance.random() < 0.1 else {}),
            }
            if about:
                organizations[org] = about
        document = {
            "name": f"p{chance.randrange(1000)}",
            "deny_rules": [self._rule(f"deny-{n}") for n in range(chance.choice((0, 1, 1)))],
            "allow_rules": [self._rule(f"allow-{n}") for n in range(chance.choice((1, 2, 3)))],
            "public": chance.choice(([], ["/public.S/Call"])),
            "organizations": organizations,
            # Only where an organization has it.
            "quotas": {"metered": {"requests_per_second": 1000, "burst": 1000}}
            if "metered" in str(organizations)
            else {},
        }
        return {name: value for name, value in document.items() if value}

    def _rule(self, name: str) -> dict[str, Any]:
        chance = self.chance
        made: dict[str, Any] = {"name": name}
        request: dict[str, Any] = {}
        source: dict[str, Any] = {}
        if chance.random() < 0.7:
            request["paths"] = chance.sample(["/a.S/*", "/a.S/Get", "/b.S/*", "/one*", "*", "/a.S//Get"], 2)
        if chance.random() < 0.2:
            request["methods"] = chance.sample(["GET", "HEAD", "POST", "DELETE", "PROPFIND"], 2)
        if chance.random() < 0.2:
            request["headers"] = [{"key": "x-mode", "values": ["slow"]}]
        if chance.random() < 0.4:
            source["organizations"] = chance.sample(ORGS, 2)
        if chance.random() < 0.2:
            source["clients"] = [chance.choice(CLIENTS)]
        if chance.random() < 0.2:
            source["scopes"] = ["read"]
        if chance.random() < 0.2:
            source["groups"] = ["gold"]
        if chance.random() < 0.15:
            source["principals"] = ["*"]
        return made | ({"request": request} if request else {}) | ({"source": source} if source else {})
