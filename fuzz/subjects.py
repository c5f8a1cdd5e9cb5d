"""What the targets share: an issuer with the same keys in every run, and changes that provoke mistakes."""

import base64
import json
import random
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwcrypto.jwk import JWK

from authz.demo.issuer.signing import SigningKey
from authz.issuer.verifier import Verifier
from tests.doubles import AUDIENCE, ISSUER, ManualClock, jwks, m2m_claims

Mutate = Callable[[bytes], bytes]
"""libFuzzer's own mutation, which knows nothing of tokens."""


def _key(kid: str, private: Any, algorithm: str) -> SigningKey:
    return SigningKey.from_jwk({**JWK.from_pyca(private).export(as_dict=True), "kid": kid, "alg": algorithm})


# Fixed and public, so that stored tokens stay valid, and Ed25519 signatures the same.
ED = _key("ed", ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))), "EdDSA")
ES = _key("es", ec.derive_private_key(0xF022, ec.SECP256R1()), "ES256")
STRANGER = _key("ed", ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)), "EdDSA")

JWKS = jwks(ED, ES)
ALGORITHMS = ("EdDSA", "ES256")
TOKEN = ED.sign(m2m_claims())

ODD = (
    *(None, True, False, 0, -1, 1.5, 1e308, 10**21, "", "\0", "\n", "\ud800", "é", "a,b", "a b", "x" * 300),
    *([], {}, [""], [None], {"": ""}, [[]]),
)


def new_verifier() -> Verifier:
    """Return a verifier of these keys, with a clock that stands still and a small memory."""
    clock = ManualClock().clock
    return Verifier(
        issuer=ISSUER, audience=AUDIENCE, jwks=JWKS, algorithms=ALGORITHMS, allow_missing_kid=True,
        token_memory=100_000, clock=clock,
    )  # fmt: skip


def segment(data: bytes) -> bytes:
    """Encode one segment of a token."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def unsegment(data: bytes) -> bytes:
    """Decode one segment, as far as possible."""
    try:
        return base64.urlsafe_b64decode(data + b"=" * (-len(data) % 4))
    except ValueError:
        return b"{}"


def change(members: dict[str, Any], names: tuple[str, ...], good: tuple[Any, ...], dice: random.Random) -> None:
    """Remove a member, or give it another value."""
    name = dice.choice(names)
    if dice.random() < 1 / 4:
        members.pop(name, None)
    else:
        members[name] = dice.choice((*good, *ODD))


def as_json(members: dict[str, Any], dice: random.Random) -> bytes:
    """Write JSON, now and then with something that only a lenient parser accepts."""
    text = json.dumps(members, separators=(",", ":"))
    if members and dice.randrange(6) == 0:
        name = dice.choice(list(members))
        twice = json.dumps({name: dice.choice((members[name], *ODD))}, separators=(",", ":"))
        text = dice.choice((f"{text[:-1]},{twice[1:]}", f"\ufeff{text}", f"{text} {text}", f" {text}\n", f"[{text}]"))
    return text.encode()


def read_once(data: bytes) -> dict[str, Any]:
    """Read JSON without repeated names, independently of our code."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({name for name, _ in pairs}) == len(pairs), "a name twice"
        return dict(pairs)

    value: dict[str, Any] = json.loads(data.decode(), object_pairs_hook=members)
    return value
