import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from authz import Authorizer, Policy, Verifier
from authz.connect import interceptors, interceptors_sync
from authz.decisions.decision import Decision
from authz.demo.issuer.signing import SigningKey
from tests.connect.client import CONNECT, Outcome, Way, begin, client, finish
from tests.connect.messages import GOOGLE, Library
from tests.connect.servers import Server
from tests.connect.service import PUBLIC_METHODS, AsgiApp, Handlers, SyncHandlers, Witness, WsgiApp
from tests.doubles import ORG, jwks, m2m_claims

TENANT = "tenant-7"
OTHER = "org_01JYGLOBEX0000000000000000"
POLICY = {"name": "all", "allow_rules": [{"name": "all"}], "organizations": {ORG: {"tenant": TENANT}}}


@pytest.fixture
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims())


@pytest.fixture
def verifier(new_verifier: Callable[..., Verifier], ec_key: SigningKey) -> Verifier:
    """Return a verifier that has its keys."""
    return new_verifier(jwks=jwks(ec_key))


@dataclass
class Site:
    """A server, its judge, and what its handlers have seen."""

    server: Server
    library: Library
    authorizer: Authorizer
    port: int
    witness: Witness
    decisions: list[Decision] = field(default_factory=list)

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """What has been told of each decision: the event, the reason of a refusal, the organization."""
        return [
            (one.event, "" if one.refusal is None else one.refusal.reason, one.evidence.principal.org_id)
            for one in self.decisions
        ]

    def order(self, **fields: Any) -> Any:
        return self.library.order(**fields)

    def ask(
        self, kind: str, way: Way = CONNECT, requests: Iterable[Any] | None = None, headers: Any = None, **options: Any
    ) -> Outcome:
        """Make a call, and return what became of it."""
        sent = [self.library.order(note="hello")] if requests is None else requests
        with client(self.port, self.library, way) as one:
            return finish(begin(one, self.library, kind, sent, headers=headers, use_get=way.use_get, **options))


Serve = Callable[..., Site]


@pytest.fixture
def serve(verifier: Verifier) -> Iterator[Serve]:
    """Return a function that starts a server for one test."""
    with contextlib.ExitStack() as stack:

        def begin(
            server: Server = Server.UVICORN,
            library: Library = GOOGLE,
            *,
            judge: Authorizer | None = None,
            handlers: Callable[[Library, Witness], Any] | None = None,
            chain: Callable[[tuple[Any, ...]], Iterable[Any]] = lambda ours: ours,
            wrap: Callable[[Any, Authorizer], Any] = lambda app, _judge: app,
            policy: Any = POLICY,
            **options: Any,
        ) -> Site:
            decisions: list[Decision] = []
            if judge is None:
                policy = Policy.from_document(policy)
                judge = Authorizer(verifier, public_methods=PUBLIC_METHODS, policy=policy)
            judge.telling.observe(decisions.append)
            witness = Witness()
            if server.is_asgi:
                app: Any = AsgiApp(
                    library, (handlers or Handlers)(library, witness), chain(interceptors(judge, **options))
                )
            else:
                app = WsgiApp(
                    library, (handlers or SyncHandlers)(library, witness), chain(interceptors_sync(judge, **options))
                )
            port = stack.enter_context(server.serve(wrap(app, judge)))
            return Site(server, library, judge, port, witness, decisions)

        yield begin
