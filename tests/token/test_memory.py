"""The memory of verified tokens: as many as fit, and no more bytes than it may take."""

import gc
import subprocess
import sys
import tracemalloc
from typing import Any

import pytest

from authz.call.principal import Principal
from authz.demo.issuer.signing import SigningKey
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers
from authz.token.memory import TokenMemory, Verified
from tests.doubles import AUDIENCE, ISSUER, ORG, ManualClock, jwks, m2m_claims

NOW = ManualClock().now
KIB = 1024


def verified(until: float, size: int = 4) -> Verified:
    principal = Principal(org_id=ORG, client_id="client", subject="client")
    return Verified(principal, None, until, until, size)  # type: ignore[arg-type] - no key is looked at


def digest(number: int) -> bytes:
    return number.to_bytes(32)


@pytest.fixture
def memory() -> TokenMemory:
    """Room for four."""
    return TokenMemory(KIB)


def held(memory: TokenMemory, *numbers: int) -> list[int]:
    return [number for number in numbers if memory.recall(digest(number)) is not None]


def test_the_oldest_leave_for_the_newest(memory: TokenMemory) -> None:
    for number in range(6):
        memory.remember(digest(number), verified(NOW + 300), NOW)

    assert held(memory, *range(6)) == [2, 3, 4, 5]
    assert memory.figures() == (4, KIB, KIB, 2)


def test_a_token_that_is_verified_anew_is_the_newest(memory: TokenMemory) -> None:
    for number in (0, 1, 2, 3, 0, 4):
        memory.remember(digest(number), verified(NOW + 300), NOW)

    assert held(memory, *range(5)) == [0, 2, 3, 4]
    assert memory.figures().bytes == KIB


def test_a_large_token_has_several_leave(memory: TokenMemory) -> None:
    for number in range(4):
        memory.remember(digest(number), verified(NOW + 300), NOW)
    memory.remember(digest(4), verified(NOW + 300, size=11), NOW)

    assert held(memory, *range(5)) == [3, 4]


def test_a_token_that_is_larger_than_the_room_is_not_remembered(memory: TokenMemory) -> None:
    memory.remember(digest(0), verified(NOW + 300, size=17), NOW)

    assert memory.figures()[:2] == (0, 0)


def test_only_what_leaves_before_its_time_is_missed(memory: TokenMemory) -> None:
    for number in range(4):
        memory.remember(digest(number), verified(NOW + number), NOW)
    for number in range(4, 8):
        memory.remember(digest(number), verified(NOW + 300), NOW + 2)

    assert memory.figures().forgotten == 1


def test_what_has_expired_leaves_as_new_ones_come_and_is_not_missed(memory: TokenMemory) -> None:
    for number in range(3):
        memory.remember(digest(number), verified(NOW + 1, size=1), NOW)
    memory.remember(digest(3), verified(NOW + 300, size=1), NOW + 1)
    first = held(memory, *range(4))
    memory.remember(digest(4), verified(NOW + 300, size=1), NOW + 1)

    assert first == [2, 3]
    assert held(memory, *range(5)) == [3, 4]
    assert memory.figures() == (2, 128, KIB, 0)


def test_a_forked_child_remembers_nothing(memory: TokenMemory) -> None:
    memory.remember(digest(0), verified(NOW + 300), NOW)
    memory.after_fork()

    assert held(memory, 0) == []
    assert memory.figures() == (0, 0, KIB, 0)


SHAPES: dict[str, dict[str, Any]] = {
    "usual": {},
    "many": {f"claim_{number}": f"{number}" for number in range(60)},
    "numbers": {f"n{number}": 1000.5 + number for number in range(60)},
    "long": {"name": "x" * 4000},
    "one long with an emoji": {"name": "x" * 2000 + "\N{OCTOPUS}"},
    "accents": {f"n{number}": "é" * 20 for number in range(30)},
    "escapes": {"name": '"\\' * 300},
    "list of numbers": {"list": [1000 + number for number in range(900)]},
    "list of texts": {"list": [f"{number:02}" for number in range(300)]},
    "nested": {"a": [{"b": {"c": [f"{number}"]}} for number in range(40)]},
    "empty": {"a": [[] for _ in range(100)], "b": [{} for _ in range(100)]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_token_counts_as_no_less_than_it_takes(ec_key: SigningKey, shape: str) -> None:
    """With everything that is remembered of it."""
    verifier = Verifier(
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=["ES256"],
        jwks=jwks(ec_key),
        token_memory=KIB**3,
        clock=ManualClock().clock,
    )
    tokens = []
    for number in range(150):
        # Of one application, which is known by what its last token has said.
        own = {"org_id": f"org_01JY{number:018d}", "jti": f"01JY{number:022d}"}
        tokens.append(ec_key.sign(m2m_claims(NOW, **own, **SHAPES[shape])))
    for token in tokens[:20]:
        verifier.verify(token)
    gc.collect()
    before = verifier.memories[ISSUER].figures().bytes
    tracemalloc.start()
    for token in tokens[20:]:
        verifier.verify(token)
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 0 < taken <= verifier.memories[ISSUER].figures().bytes - before


_PROGRAM = """
import resource
from authz import Verifier
from authz.demo.issuer.signing import SigningKey
from tests.doubles import AUDIENCE, ISSUER, ManualClock, jwks, m2m_claims

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

key, clock = SigningKey.generate("ed-1", "EdDSA"), ManualClock()
verifier = Verifier(
    issuer=ISSUER, audience=AUDIENCE, algorithms=["EdDSA"], jwks=jwks(key), token_memory=LIMIT, clock=clock.clock
)

def verify(first, last):
    for number in range(first, last):
        client = f"client_{number}"
        verifier.verify(key.sign(m2m_claims(clock.now, sub=client, client_id=client, jti=str(number))))

verify(0, 50)
before = resident()
verify(50, 6_000)
tokens, counted, limit, forgotten = verifier.memories[ISSUER].figures()
print(resident() - before, tokens, counted, limit, forgotten)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_grows_by_no_more_than_tokens_may_take() -> None:
    """Two times as many tokens as there is room for, each of an application of its own."""
    limit = 4 * KIB * KIB
    program = _PROGRAM.replace("LIMIT", str(limit))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    grown, tokens, counted, told, forgotten = map(int, done.stdout.split())

    assert told == limit
    assert counted <= limit
    assert tokens + forgotten == 6000
    assert tokens < 4000
    # With all that Python keeps besides: what it knows of applications, and memory that it has not given back.
    assert grown < limit + 2 * KIB * KIB


def test_issuers_share_nothing(ec_key: SigningKey) -> None:
    """The tokens of one leave those of another alone."""
    other = "https://other.authkit.app"
    verifiers = Verifiers(
        *(
            Verifier(
                issuer=issuer,
                audience=AUDIENCE,
                algorithms=["ES256"],
                jwks=jwks(ec_key),
                token_memory=5000,
                clock=ManualClock().clock,
            )
            for issuer in (ISSUER, other)
        ),
        shared_organizations=True,
    )
    token = ec_key.sign(m2m_claims(NOW, iss=other))
    principal = verifiers.verify(token)
    for number in range(20):
        verifiers.verify(ec_key.sign(m2m_claims(NOW, jti=str(number))))

    assert verifiers.verify(token) is principal
    assert verifiers.memories[other].figures().forgotten == 0
    assert verifiers.memories[ISSUER].figures().forgotten > 10
