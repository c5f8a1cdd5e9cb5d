"""The inputs that ``make fuzz`` begins with, which keep their promises without it too."""

import pathlib

import pytest

from authz.envoy.v3.external_auth_pb2 import CheckResponse
from authz.errors import AuthzError
from authz.token.jwk import PRIVATE_MEMBERS
from fuzz import fuzz_check, fuzz_jwks, fuzz_memo, fuzz_token
from fuzz.subjects import ED, TOKEN, new_verifier
from tests.doubles import NOW, ORG, m2m_claims

CORPUS = pathlib.Path(fuzz_token.__file__).with_name("corpus")
TARGETS = {"token": fuzz_token, "jwks": fuzz_jwks, "check": fuzz_check}


@pytest.fixture(scope="module", autouse=True)
def closed_loop():
    yield
    fuzz_check.LOOP.close()


def kept(folder):
    return [
        pytest.param(name, path, id=f"{name}-{path.name}")
        for name in TARGETS
        for path in sorted((folder / name).iterdir())
    ]


@pytest.mark.parametrize(("name", "path"), kept(CORPUS))
def test_a_kept_input_breaks_no_promise(name, path):
    TARGETS[name].check(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs_break_no_promise(name):
    """A few of the changes that fuzzing makes, with bytes turned round where it would change bytes at random."""
    path = CORPUS / name / "good"
    for seed in range(200):
        TARGETS[name].check(TARGETS[name].mutate(path.read_bytes(), seed, lambda data: data[::-1]))


def test_a_world_breaks_no_promise():
    """One: each has a hundred calls, and tests/envoy/memo plays many."""
    data = (CORPUS / "memo" / "good").read_bytes()
    fuzz_memo.check(fuzz_memo.mutate(data, 1, lambda data: data[::-1]))


def test_the_good_token_is_good_and_its_oracle_knows():
    assert new_verifier().verify(TOKEN).org_id == ORG
    assert (CORPUS / "token" / "good").read_text() == TOKEN
    assert fuzz_token.is_signed(TOKEN)


def test_the_oracle_is_no_yes_man():
    """It must say no where a broken verifier would say yes."""
    head, payload, signature = TOKEN.split(".")

    assert not fuzz_token.is_signed(f"{head}.{payload}.{signature[:-2]}AA")
    assert not fuzz_token.is_signed((CORPUS / "token" / "stranger").read_text())
    with pytest.raises(AuthzError):
        new_verifier().verify((CORPUS / "token" / "stranger").read_text())


@pytest.mark.parametrize("changes", [{"exp": NOW - 11}, {"aud": ["other"]}, {"sid": "s"}, {"org_id": "other"}])
def test_the_oracle_of_claims_is_no_yes_man_either(changes):
    assert fuzz_check.is_good(m2m_claims())
    assert not fuzz_check.is_good(m2m_claims(**changes))


def test_the_oracle_of_keys_is_no_yes_man_and_takes_null_as_absent():
    member = ED.public_jwk()

    assert fuzz_jwks.is_public({**member, "d": None, "k": None})
    assert not any(fuzz_jwks.is_public({**member, name: "AQAB"}) for name in PRIVATE_MEMBERS)
    assert not fuzz_jwks.is_public({**member, "kty": "oct"})


def test_kept_requests_open_the_door():
    """Else nobody would look at what a door does that is open."""
    for name in ("good", "verified", "route"):
        answer = fuzz_check.LOOP.run(fuzz_check.BELIEVER.check((CORPUS / "check" / name).read_bytes(), None))
        assert CheckResponse.FromString(answer).status.code == 0
