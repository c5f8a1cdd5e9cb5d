"""What Envoy repeats, the judge says now: in random worlds, under the interpreter that Envoy has."""

import pytest

from authz.demo.issuer.signing import SigningKey
from tests.envoy.memo.world import World

STEPS = 60
CALLS = 8_000
"""How many calls there are at least; twenty thousand where the tests run as a whole."""


def play(worlds: range, keys: list[SigningKey], calls: int) -> tuple[int, int]:
    made = repeats = 0
    for seed in worlds:
        world = World(seed, keys)
        world.run(STEPS)
        made, repeats = made + world.calls, repeats + world.repeats
        if made >= calls:
            break
    return made, repeats


def test_envoy_repeats_only_what_every_worker_says_now(ec_key: SigningKey, other_key: SigningKey) -> None:
    made, repeats = play(range(10_000), [ec_key, other_key], CALLS)

    assert made >= CALLS
    # It does repeat.
    assert repeats > made / 10


@pytest.mark.long
def test_envoy_repeats_only_what_every_worker_says_now_in_many_worlds(
    ec_key: SigningKey, other_key: SigningKey
) -> None:
    made, repeats = play(range(10_000, 100_000), [ec_key, other_key], 20_000)

    assert made >= 20_000
    assert repeats > made / 10
