"""Random worlds around the script that Envoy runs: what it repeats, every worker says now."""

from hashlib import sha256

from authz.demo.issuer.signing import SigningKey
from fuzz.subjects import Mutate
from tests.envoy.memo.world import World

STEPS = 60

_KEYS = [SigningKey.generate("ec-1", "ES256"), SigningKey.generate("ec-2", "ES256")]


def check(data: bytes) -> None:
    """Play the world that ``data`` chooses; about a hundred calls."""
    World(int.from_bytes(sha256(data).digest()[:8]), _KEYS).run(STEPS)


def mutate(data: bytes, _seed: int, mutate_part: Mutate) -> bytes:
    """Return other data: any other is another world."""
    return mutate_part(data)
