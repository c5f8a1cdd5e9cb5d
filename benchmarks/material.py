"""Keys, tokens and requests that the benchmarks share."""

import time
from functools import cache
from typing import Any

from authz import Verifier
from authz.demo.issuer.signing import SigningKey
from authz.envoy.v3.external_auth_pb2 import CheckRequest

ISSUER = "https://acme.authkit.app"
AUDIENCE = "client_01JYENV0000000000000000000"
CLIENT = "client_01JYACME000000000000000002"
KID = "sso_oidc_key_pair_01JYKEY0000000000000000003"


@cache
def signing_key(algorithm: str = "RS256") -> SigningKey:
    """Return one key per algorithm."""
    return SigningKey.generate(KID, algorithm)


def claims(serial: int = 0) -> dict[str, Any]:
    """Return the claims of a WorkOS M2M token that is good for an hour."""
    now = int(time.time())
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": CLIENT,
        "client_id": CLIENT,
        "org_id": "org_01JYACME000000000000000001",
        "scope": "ledger:read ledger:write",
        "jti": f"01JYTOKEN{serial:017d}",
        "iat": now,
        "exp": now + 3600,
    }


def verifier(key: SigningKey) -> Verifier:
    """Return a verifier that knows ``key``."""
    return Verifier(issuer=ISSUER, audience=AUDIENCE, jwks={"keys": [key.public_jwk()]}, algorithms=[key.algorithm])


def check_request(token: str, method: str = "/authz.demo.v1.LedgerService/PostEntry") -> bytes:
    """Return what Envoy sends about one gRPC call, as its default form writes it."""
    request = CheckRequest()
    attributes = request.attributes
    attributes.source.address.socket_address.address = "127.0.0.1"
    attributes.source.address.socket_address.port_value = 40404
    attributes.destination.address.socket_address.address = "127.0.0.1"
    attributes.destination.address.socket_address.port_value = 10000
    attributes.request.time.GetCurrentTime()
    http = attributes.request.http
    http.id, http.method, http.scheme, http.protocol = "1234567890123456789", "POST", "http", "HTTP/2"
    http.host, http.path = "ledger.example", method
    http.headers.update(
        {
            ":authority": http.host,
            ":method": "POST",
            ":path": http.path,
            ":scheme": "http",
            "te": "trailers",
            "content-type": "application/grpc",
            "user-agent": "grpc-python-asyncio/1.85.1 grpc-c/58.0.0 (linux; chttp2)",
            "authorization": f"Bearer {token}",
            "x-forwarded-proto": "http",
            "x-request-id": "a8c1d1c6-6e0c-4f5e-9d5e-2f3b8f3b1c11",
        }
    )
    return request.SerializeToString()
