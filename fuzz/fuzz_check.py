"""Envoy's requests: any bytes get an answer, and OK only for a public method or with the required credentials.

These are a good token, or good claims that Envoy has verified if it is trusted, and what the route also requires.
"""

import asyncio
import contextlib
import random
import re
from typing import Any

from google.protobuf.json_format import MessageToDict

from authz.call.words import MAX_TIME
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import AttributeContext, CheckRequest, CheckResponse, HeaderValue
from authz.issuer.verifier import DEFAULT_LEEWAY as LEEWAY
from authz.judge.authorizer import Authorizer
from fuzz.subjects import ED, STRANGER, TOKEN, Mutate, change, new_verifier
from tests.doubles import AUDIENCE, ISSUER, NOW, ORG, m2m_claims
from tests.envoy.check.messages import is_sound

PUBLIC = "/grpc.health.v1.Health/Check"
METHOD = "/authz.demo.v1.LedgerService/PostEntry"

PAYLOAD = "payload"
_JWT_AUTHN = "envoy.filters.http.jwt_authn"

_AUTHORIZER = Authorizer(new_verifier(), public_methods=[PUBLIC])
_SERVICER = AuthorizationServicer(_AUTHORIZER)
BELIEVER = AuthorizationServicer(_AUTHORIZER, jwt_authn_payload=PAYLOAD)
LOOP = asyncio.Runner()
_INTERNAL = 13
# Keys that an operator may have meant for us.
_LIKE_OURS = re.compile("audience|scope|polic|authz", re.IGNORECASE)


def check(data: bytes) -> None:
    """Ask, and check the answer as Envoy reads it."""
    for servicer in (_SERVICER, BELIEVER):
        response = CheckResponse.FromString(LOOP.run(servicer.check(data, None)))  # type: ignore[arg-type]
        assert is_sound(response)
        if response.status.code in (0, _INTERNAL):
            _examine(CheckRequest.FromString(data).attributes, response, believes=servicer is BELIEVER)


def _examine(attributes: AttributeContext, response: CheckResponse, *, believes: bool) -> None:
    asked = {name: value for name, value in attributes.context_extensions.items() if _LIKE_OURS.search(name)}
    if response.status.code == _INTERNAL:
        assert asked, "something unforeseen"
        return
    http = attributes.request.http
    given = {option.header.key: option.header.value for option in response.ok_response.headers}
    trusted = _AUTHORIZER.trusted
    assert set(given) | set(response.ok_response.headers_to_remove) == {*trusted.removed, *trusted.prefixed}
    if http.path.partition("?")[0] == PUBLIC and not (asked.keys() & {"audience", "scopes", "policy"}):
        assert not given, "no metadata is trusted on a public method"
        return
    claims = m2m_claims()
    verified = attributes.metadata_context.filter_metadata[_JWT_AUTHN].fields[PAYLOAD]
    tokens = tokens_of(http, any_spelling=believes and verified.HasField("struct_value"))
    if tokens != [TOKEN]:
        assert believes, "let in without the token"
        assert tokens == [], "let in with another token"
        claims = MessageToDict(verified.struct_value)
        assert is_good(claims), "let in without good claims"
    assert given["x-org-id"] == claims["org_id"]
    assert "policy" not in asked, "let in without a decision of the policy"
    assert asked.get("audience", AUDIENCE) in _words(claims["aud"])
    assert set(asked.get("scopes", "").split()) <= set(_words(claims.get("scope", claims.get("scp", ""))))


def is_good(claims: dict[str, Any]) -> bool:
    """Say, independently of our code, whether these are claims of an M2M token that is valid now."""
    return (
        claims["iss"] == ISSUER
        and AUDIENCE in _words(claims["aud"])
        and NOW - LEEWAY < claims["exp"] < MAX_TIME + 1
        and max(claims.get("nbf", 0), claims.get("iat", 0)) <= NOW + LEEWAY
        and re.fullmatch(r"org_[A-Za-z0-9]{1,64}", claims["org_id"]) is not None
        and claims.get("client_id", claims["sub"]) == claims["sub"]
        and not claims["sub"].startswith("user_")
        and not claims.keys() & {"sid", "nonce", "at_hash", "c_hash", "s_hash", "cnf"}
    )


def _words(value: Any) -> list[str]:
    return value.split() if isinstance(value, str) else [word for item in value for word in item.split()]


def tokens_of(http: "CheckRequest.DESCRIPTOR", *, any_spelling: bool) -> list[str]:  # type: ignore[valid-type,name-defined]
    """Return the credentials of every ``authorization`` there is.

    Envoy writes the keys of ``headers`` in lower case. Where claims may stand for a token, one in any spelling counts.
    """
    if not http.HasField("header_map"):
        return [
            value[len("Bearer ") :]
            for key, value in http.headers.items()
            if (key.lower() if any_spelling else key) == "authorization"
        ]
    headers = [(header.key, header.raw_value or header.value.encode()) for header in http.header_map.headers]
    return [value.decode("latin-1")[len("Bearer ") :] for key, value in headers if key.lower() == "authorization"]


_TOKENS = (TOKEN, TOKEN, STRANGER.sign(m2m_claims()), ED.sign(m2m_claims(NOW - 3600)), TOKEN[:-1], "", "é")
_SCHEMES = ("Bearer ", "bearer ", "Basic ", "Bearer  ", "", "Bearer a,Bearer ")
_NAMES = ("authorization", "Authorization", "authorization-bin", "x-org-id", "content-type", "X-Org-Id", "cookie")
_PATHS = (
    METHOD,
    PUBLIC,
    f"{PUBLIC}?x",
    f"{PUBLIC}/",
    f"/{PUBLIC}",
    f"{METHOD}?access_token={TOKEN}",
    "",
    "//",
    "/a.B/C/D",
)


_EXTENSIONS = (
    *({"scopes": "ledger:read"}, {"scopes": "ledger:close"}, {"scopes": ""}, {"scope": "ledger:read"}),
    *({"audience": AUDIENCE}, {"audience": "other"}, {"policy": "partners"}, {"virtual_host": "v"}),
)
_CLAIMS = (*m2m_claims(), "sid", "nonce", "cnf", "nbf", "scp")
_GOOD = (ISSUER, AUDIENCE, ORG, NOW + 60, NOW - 9, NOW - 11, 1.0, [AUDIENCE, "other"], "user_1", "ledger:close")


def mutate(data: bytes, seed: int, libfuzzer: Mutate) -> bytes:
    """Change bytes, or what a request says."""
    dice = random.Random(seed)
    if dice.randrange(3) == 0:
        return libfuzzer(data)
    try:
        request = CheckRequest.FromString(data)
    except Exception:  # noqa: BLE001 - the bytes are not a request: begin with a new one
        request = CheckRequest()
    if dice.randrange(3) == 0:
        _change_context(request.attributes, dice)
    else:
        _change_http(request.attributes.request.http, dice)
    return request.SerializeToString(deterministic=True)


def _change_context(attributes: AttributeContext, dice: random.Random) -> None:
    how = dice.randrange(4)
    verified = attributes.metadata_context.filter_metadata[_JWT_AUTHN]
    if how == 0:
        attributes.context_extensions.update(dice.choice(_EXTENSIONS))
    elif how == 1:
        attributes.context_extensions.clear()
    else:
        claims: dict[str, Any] = m2m_claims()
        if how == 2:  # noqa: PLR2004 - one of the ways
            change(claims, _CLAIMS, _GOOD, dice)
        # Not every JSON value fits into this message.
        with contextlib.suppress(ValueError):
            verified.update({PAYLOAD: claims})


def _change_http(http: AttributeContext.HttpRequest, dice: random.Random) -> None:
    how = dice.randrange(6)
    name = dice.choice(_NAMES)
    value = dice.choice(("application/grpc", dice.choice(_SCHEMES) + dice.choice(_TOKENS)))
    if how == 0:
        http.path = dice.choice(_PATHS)
    elif how == 1:
        http.headers[name] = value
    elif how == 2:  # noqa: PLR2004 - one of the ways
        http.header_map.headers.append(HeaderValue(key=name, raw_value=value.encode()))
    elif how == 3:  # noqa: PLR2004 - one of the ways
        http.headers.clear()
        http.header_map.headers.append(HeaderValue(key="authorization", raw_value=b"Bearer " + TOKEN.encode()))
    elif how == 4:  # noqa: PLR2004 - one of the ways
        http.ClearField("header_map")
        http.headers.clear()
    else:
        http.ClearField("header_map")
        http.headers["authorization"] = f"Bearer {TOKEN}"
