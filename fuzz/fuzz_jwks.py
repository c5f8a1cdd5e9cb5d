"""Key sets: whatever an issuer answers, only fit keys are accepted, and good keys stay."""

import contextlib
import json
import random
from typing import Any

from authz.errors import KeyNotFoundError, KeySetUnavailableError
from authz.issuer.endpoint import Endpoint
from authz.issuer.remote_keys import STALE, RemoteKeySet
from authz.runtime.flow import run
from authz.runtime.network.transport import HttpResponse
from authz.token.encoding import json_object
from authz.token.jwk import MAX_KEYS, SUPPORTED_ALGORITHMS, is_kid, parse_jwks
from fuzz.subjects import ED, ES, JWKS, Mutate, as_json, change
from tests.doubles import JWKS_URL, FakeTransport, ManualClock

_SEED = parse_jwks(JWKS)
_CLOCK = ManualClock().clock
_DAY = 86_400
_SECRET = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
_SIZES = {64, 96, 132, *range(256, 1025)}


def check(data: bytes) -> None:
    """Let an issuer answer: one line is its ``cache-control``, the rest its key set."""
    caching, _, body = data.partition(b"\n")
    response = HttpResponse(status=200, headers={"cache-control": caching.decode("latin-1"), "age": "7"}, body=body)
    keys = RemoteKeySet(Endpoint(JWKS_URL, FakeTransport(lambda: response)), clock=_CLOCK, seed=_SEED, jitter=float)
    with contextlib.suppress(KeyNotFoundError, KeySetUnavailableError):
        run(keys.find("unknown"))
    health = keys.health()
    assert health.is_ready, "no keys left"
    assert health.error != "unforeseen"
    assert STALE <= health.lasts <= _DAY
    if health.error:
        assert run(keys.find("ed")) is _SEED.get("ed"), "what failed replaced what works"
        return
    members = json.loads(body)["keys"]
    assert 0 < health.keys <= len(members) <= MAX_KEYS
    ring = parse_jwks(json_object(body, max_containers=1024))
    for kid, key in ((kid, key) for kid, keys in ring.keys.items() for key in keys):
        assert kid is None or is_kid(kid)
        assert key.algorithms <= SUPPORTED_ALGORITHMS
        assert key.signature_size in _SIZES
        assert not any(key.verify(name, b"x", bytes(key.signature_size)) for name in SUPPORTED_ALGORITHMS)
        assert any(is_public(member) for member in members if isinstance(member, dict) and member.get("kid") == kid)


def is_public(member: dict[str, Any]) -> bool:
    """Say whether a key has nothing that must be kept secret; a member that is ``null`` says nothing."""
    return member.get("kty") in ("RSA", "EC", "OKP") and all(member.get(name) is None for name in _SECRET)


_MEMBERS = ("kty", "crv", "x", "y", "n", "e", "d", "k", "kid", "use", "key_ops", "alg", "x5c")
_VALUES = (
    *("RSA", "EC", "OKP", "oct", "P-256", "P-384", "Ed25519", "AQAB", "AQ", "Aw", "sig", "enc", "ES256", "EdDSA"),
    *(["verify"], ["sign"], ["sign", "verify"], "ed", "es", ED.public_jwk()["x"], ES.public_jwk()["y"]),
    "w" + "A" * 340 + "B",
)
_CACHING = (b"", b"max-age=300", b"max-age=9999999999", b'public, max-age="86401"', b"MAX-AGE=0", b"s-maxage=1")


def mutate(data: bytes, seed: int, libfuzzer: Mutate) -> bytes:
    """Change bytes, or a member of a key, or the set."""
    dice = random.Random(seed)
    caching, _, body = data.partition(b"\n")
    if dice.randrange(3) == 0:
        return libfuzzer(data)
    if dice.randrange(8) == 0:
        caching = dice.choice(_CACHING)
    try:
        document = json.loads(body)
        members = document["keys"]
        how = dice.randrange(8)
        if how == 0:
            members.append(dice.choice(JWKS["keys"]))
        elif how == 1:
            del members[dice.randrange(len(members))]
        else:
            change(dice.choice(members), _MEMBERS, _VALUES, dice)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        document = JWKS
    return caching + b"\n" + as_json(document, dice)
