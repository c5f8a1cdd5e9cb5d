"""The calls of the demonstration, and their expected answers."""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx2

from authz.demo.issuer.directory import Application
from authz.demo.issuer.signing import SigningKey
from authz.demo.partner import Answer, Metadata, authorized, call_every_kind, request_http
from authz.demo.stack import Stack
from authz.issuer.token_source import ClientCredentials

_HTTP = {
    "OK": "200",
    "UNAUTHENTICATED": "401",
    "PERMISSION_DENIED": "403",
    "RESOURCE_EXHAUSTED": "429",
    "UNAVAILABLE": "503",
}
_PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The expected answer to every kind of call.

    Args:
        status: the gRPC status; plain HTTP has the status that corresponds to it.
        reason: a refusal's.
        org_id: the organization that the backend must have seen.

    """

    status: str
    reason: str = ""
    org_id: str = ""

    def matches(self, answer: Answer) -> bool:
        """Say whether ``answer`` is as expected."""
        org_ids = frozenset([self.org_id]) if self.org_id else frozenset()
        if answer.kind == "HTTP":
            return (answer.status, answer.org_ids) == (_HTTP[self.status], org_ids)
        return (answer.status, answer.reason, answer.org_ids) == (self.status, self.reason, org_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The answers to one thing that was sent, in every kind of call.

    Args:
        sent: what was sent.
        expected: the expected answer.
        through_envoy: the answers of the four RPC kinds.
        http: the answer to plain HTTP through Envoy.
        direct: the answers without Envoy: of the four RPC kinds, and of plain HTTP; or none if that is not shown.

    """

    sent: str
    expected: Expected
    through_envoy: tuple[Answer, ...]
    http: Answer | None = None
    direct: tuple[Answer, ...] = field(default=())

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Every answer."""
        return (*self.through_envoy, *([self.http] if self.http else []), *self.direct)

    @property
    def wrong(self) -> tuple[Answer, ...]:
        """The answers that are not as expected."""
        return tuple(answer for answer in self.answers if not self.expected.matches(answer))


class Scenes:
    """The scenes, in order; each builds on those before it.

    Args:
        stack: the running processes.

    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._acme, self._globex = stack.directory.applications[:2]

    def good_calls(self) -> Iterator[Row]:
        """Send each organization's own token; the ledger shows the organization that it saw."""
        for application in (self._acme, self._globex):
            yield self._row(
                f"{application.name}: its own token", authorized(self.token(application)), seen(application)
            )

    def bad_tokens(self) -> Iterator[Row]:
        """Send tokens that must not get in."""
        issuer_url, good = self._stack.issuer_url, self.token(self._acme)
        header, payload, signature = good.split(".")
        claims = _claims(good)
        stranger = SigningKey.generate("stranger-1")
        for_globex = _segment(claims | {"org_id": self._globex.org_id})
        rows: list[tuple[str, Metadata, str]] = [
            ("no token", (), "TOKEN_MISSING"),
            ("no token, but x-org-id of Globex", (("x-org-id", self._globex.org_id),), "TOKEN_MISSING"),
            ("Bearer and no JWT", authorized("opaque-token-123"), "TOKEN_MALFORMED"),
            ("two tokens", authorized(good) * 2, "TOKEN_MALFORMED"),
            (
                "expired an hour ago",
                authorized(_mint(issuer_url, self._acme, expires_in=-3600)),
                "TOKEN_EXPIRED",
            ),
            (
                "org_id changed to Globex, old signature",
                authorized(f"{header}.{for_globex}.{signature}"),
                "SIGNATURE_INVALID",
            ),
            (
                "signed by a stranger with our kid",
                authorized(stranger.sign(claims, _header(good))),
                "SIGNATURE_INVALID",
            ),
            (
                "another audience",
                authorized(_mint(issuer_url, self._acme, claims={"aud": "client_01JOTHER"})),
                "CLAIM_INVALID",
            ),
            (
                "another issuer",
                authorized(stranger.sign(claims | {"iss": "https://evil.authkit.app"})),
                "CLAIM_INVALID",
            ),
            ("alg: none", authorized(f"{_segment({'alg': 'none', 'kid': 'k'})}.{payload}."), "ALGORITHM_NOT_ALLOWED"),
            ("a person's token, org_id and all", authorized(self._user_token()), "CLAIM_INVALID"),
        ]
        for sent, metadata, reason in rows:
            yield self._row(sent, metadata, Expected(status="UNAUTHENTICATED", reason=reason))

    def forged_metadata(self) -> Iterator[Row]:
        """Send a good token together with another organization's name."""
        token = authorized(self.token(self._acme))
        other = self._globex.org_id
        yield self._row(
            "Acme's token, x-org-id of Globex twice", (*token, *[("x-org-id", other)] * 2), seen(self._acme)
        )
        forged = (*token, ("x-org-id-bin", other.encode()), ("x-scopes", "admin"), ("x-authz-principal-bin", b"forged"))
        yield self._row("Acme's token, x-org-id-bin and others", forged, seen(self._acme))

    def policy(self) -> Iterator[Row]:
        """Send what the ledger's ``.proto`` and the policy file forbid, and change that file."""
        without_scopes = authorized(_mint(self._stack.issuer_url, self._acme, claims={"scope": None}))
        yield self._row("Acme's token, without any scope", without_scopes, denied("INSUFFICIENT_SCOPE"))
        yield self._naming_row("Acme's token, requests that name Globex", self._globex)
        suspended = denied("ORGANIZATION_SUSPENDED")
        globex = self._globex.org_id
        yield self._policy_row(
            "the policy file now suspends Globex", suspended, organizations={globex: {"status": "suspended"}}
        )
        exhausted = Expected(status="RESOURCE_EXHAUSTED", reason="QUOTA_EXCEEDED")
        yield self._policy_row(
            "now Globex has a quota, which is used up",
            exhausted,
            organizations={globex: {"quota": "one-call"}},
            quotas={"one-call": {"requests_per_second": 0.001, "burst": 1}},
        )
        yield self._policy_row("now the file is as it was", seen(self._globex))

    def rotation(self) -> Iterator[Row]:
        """Change the issuer's key while calls go on, and later withdraw it."""
        old = self.token(self._acme)
        yield self._calls_during_rotation()
        yield self._row("a token of the old key, still published", authorized(old), seen(self._acme))
        _control(self._stack.issuer_url, "rotate", drop="true")
        yield self._row(
            "a third key's token, the others withdrawn", authorized(self.token(self._acme)), seen(self._acme)
        )
        withdrawn = Expected(status="UNAUTHENTICATED", reason="KEY_NOT_FOUND")
        yield self._row("the old token, though it was good before", authorized(old), withdrawn)

    def outage(self) -> Iterator[Row]:
        """End the issuer, and bring it back."""
        token = self.token(self._globex)
        self._stack.stop_issuer()
        yield self._row("issuer down, a token never seen before", authorized(token), seen(self._globex))
        self._stack.start_cold()
        undecided = Expected(status="UNAVAILABLE", reason="KEY_SET_UNAVAILABLE")
        yield self._cold_row("issuer down, a server without keys yet", token, undecided)
        self._stack.restart_issuer()
        self._stack.wait_for_cold()
        yield self._cold_row("issuer back, the same server", token, seen(self._globex))

    def _naming_row(self, sent: str, named: Application) -> Row:
        # Through Envoy the authorization server checks single requests, and the interceptor behind it streams of
        # requests. Plain HTTP has no field that names an organization.
        metadata = authorized(self.token(self._acme))
        return Row(
            sent=sent,
            expected=denied("ORGANIZATION_MISMATCH"),
            through_envoy=through(self._stack.target, metadata, named.org_id),
            direct=through(self._stack.backend["grpc"], metadata, named.org_id),
        )

    def _policy_row(self, sent: str, expected: Expected, **more: Mapping[str, Any]) -> Row:
        """Change the policy file, and send Globex's own token until every answer follows the change."""
        metadata = authorized(self.token(self._globex))
        self._stack.change_policy(**more)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (row := self._row(sent, metadata, expected)).wrong and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return row

    def _cold_row(self, sent: str, token: str, expected: Expected) -> Row:
        target = self._stack.cold_target
        return Row(
            sent=sent,
            expected=expected,
            through_envoy=through(target, authorized(token)),
            http=request_http(f"http://{target}", authorized(token)),
        )

    def _row(self, sent: str, metadata: Metadata, expected: Expected) -> Row:
        return Row(
            sent=sent,
            expected=expected,
            through_envoy=through(self._stack.target, metadata),
            http=request_http(f"http://{self._stack.target}", metadata),
            direct=in_process(self._stack, metadata),
        )

    def _calls_during_rotation(self) -> Row:
        threads, rounds = 4, 6

        def call(_: int) -> list[Answer]:
            answers: list[Answer] = []
            for _round in range(rounds):
                answers += through(self._stack.target, authorized(self.token(self._acme)))
            return answers

        with ThreadPoolExecutor(threads) as pool:
            running = [pool.submit(call, number) for number in range(threads)]
            _control(self._stack.issuer_url, "rotate")
            answers = tuple(answer for future in running for answer in future.result())
        sent = f"{len(answers)} calls, the key rotated among them"
        return Row(sent=sent, expected=seen(self._acme), through_envoy=answers)

    def token(self, application: Application) -> str:
        """Return a new token of an application."""
        source = ClientCredentials(
            self._stack.issuer_url, client_id=application.client_id, client_secret=application.client_secret
        )
        try:
            return source.token()
        finally:
            source.close()

    def _user_token(self) -> str:
        claims = {"sid": "app_consent_01JPERSON", "sub": "user_01JPERSON"}
        return _mint(self._stack.issuer_url, self._acme, claims=claims)


def through(target: str, metadata: Metadata, org_id: str = "") -> tuple[Answer, ...]:
    """Return the answers to a call of each kind, whose requests name an organization, if any."""
    with grpc.insecure_channel(target) as channel:
        return tuple(call_every_kind(channel, metadata, org_id))


def in_process(stack: Stack, metadata: Metadata) -> tuple[Answer, ...]:
    """Return the answers of the backend itself: of its interceptor to each kind of call, of its middleware to HTTP."""
    grpc_target, http = stack.backend["grpc"], f"http://{stack.backend['http']}/guarded"
    return (*through(grpc_target, metadata), request_http(http, metadata))


def _mint(issuer_url: str, application: Application, **order: Any) -> str:
    order["client_id"] = application.client_id
    response = httpx2.post(f"{issuer_url}/dev/tokens", json=order, trust_env=False, timeout=_PATIENCE_SECONDS)
    return str(response.raise_for_status().json()["access_token"])


def _control(issuer_url: str, action: str, **form: str) -> None:
    response = httpx2.post(f"{issuer_url}/dev/{action}", data=form, trust_env=False, timeout=_PATIENCE_SECONDS)
    response.raise_for_status()


def seen(application: Application) -> Expected:
    """Return that calls are admitted, and the backend sees the application's organization."""
    return Expected(status="OK", org_id=application.org_id)


def denied(reason: str) -> Expected:
    """Return that calls are refused for this reason."""
    return Expected(status="PERMISSION_DENIED", reason=reason)


def _segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _json(segment: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    return value


def _header(token: str) -> dict[str, Any]:
    return _json(token.split(".", maxsplit=1)[0])


def _claims(token: str) -> dict[str, Any]:
    return _json(token.split(".")[1])
