"""Envoy's requests: any bytes get an answer, and OK only with a good token or for a public method."""

import asyncio
import random

from authz.authorizer import Authorizer
from authz.envoy.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse, HeaderValue
from fuzz.subjects import ED, STRANGER, TOKEN, Mutate, new_verifier
from tests.doubles import NOW, ORG, m2m_claims
from tests.envoy.messages import is_sound

PUBLIC = "/grpc.health.v1.Health/Check"
METHOD = "/authz.demo.v1.LedgerService/PostEntry"

_AUTHORIZER = Authorizer(new_verifier(), public_methods=[PUBLIC])
_SERVICER = AuthorizationServicer(_AUTHORIZER)
LOOP = asyncio.Runner()
_INTERNAL = 13


def check(data: bytes) -> None:
    """Ask, and read the answer as Envoy does."""
    response = CheckResponse.FromString(LOOP.run(_SERVICER.check(data, None)))  # type: ignore[arg-type]
    assert is_sound(response)
    assert response.status.code != _INTERNAL, "something unforeseen"
    if response.status.code == 0:
        http = CheckRequest.FromString(data).attributes.request.http
        given = {option.header.key: option.header.value for option in response.ok_response.headers}
        if http.path.partition("?")[0] == PUBLIC:
            assert not given, "nobody is trusted there"
        else:
            assert tokens_of(http) == [TOKEN], "let in, and not with the token"
            assert given["x-org-id"] == ORG
        assert set(given) | set(response.ok_response.headers_to_remove) == set(_AUTHORIZER.trusted.removed)


def tokens_of(http: "CheckRequest.DESCRIPTOR") -> list[str]:  # type: ignore[valid-type,name-defined]
    """Return the credentials of every ``authorization`` there is."""
    if not http.header_map.headers:
        # The keys of this map are in lower case, Envoy says.
        return [value[len("Bearer ") :] for key, value in http.headers.items() if key == "authorization"]
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


def mutate(data: bytes, seed: int, libfuzzer: Mutate) -> bytes:
    """Change bytes, or what a request says."""
    dice = random.Random(seed)
    if dice.randrange(3) == 0:
        return libfuzzer(data)
    try:
        request = CheckRequest.FromString(data)
    except Exception:  # noqa: BLE001 - bytes that are no request: begin with a new one
        request = CheckRequest()
    http = request.attributes.request.http
    how = dice.randrange(5)
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
    else:
        http.ClearField("header_map")
        http.headers["authorization"] = f"Bearer {TOKEN}"
    return request.SerializeToString(deterministic=True)
