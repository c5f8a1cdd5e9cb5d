import json
import os
import stat

import jwt
import pytest
from joserfc import jws
from joserfc.jwk import import_key
from jwcrypto.common import base64url_decode

from authz.demo.issuer.signing import SigningKey, load_keys, overlay, save_keys
from authz.errors import ConfigError
from tests.full_disk import room_for

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
CLAIMS = {"sub": "client_1", "exp": 2_000_000_000}


def parts(token):
    return [base64url_decode(segment) for segment in token.split(".")]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_pyjwt_accepts_what_it_signs(algorithm):
    key = SigningKey.generate("k", algorithm)

    token = key.sign(CLAIMS)

    assert jwt.decode(token, jwt.PyJWK(key.public_jwk()), algorithms=[algorithm]) == CLAIMS


def test_joserfc_accepts_what_it_signs(rsa_key):
    signed = jws.deserialize_compact(rsa_key.sign(CLAIMS), import_key(rsa_key.public_jwk()))

    assert json.loads(signed.payload) == CLAIMS


def test_header_is_exactly_alg_and_kid(ec_key):
    header, _, _ = parts(ec_key.sign(CLAIMS))

    assert header == b'{"alg":"ES256","kid":"ec-1"}'


def test_header_parameters_are_laid_over_and_taken_away(ec_key):
    header, _, _ = parts(ec_key.sign(CLAIMS, {"kid": None, "alg": "none", "typ": "JWT"}))

    assert json.loads(header) == {"alg": "none", "typ": "JWT"}


def test_raw_bytes_are_signed_as_they_are(ec_key):
    header, payload, _ = parts(ec_key.sign(b"\xff{", b'{"alg":"none","alg":"ES256"}'))

    assert (header, payload) == (b'{"alg":"none","alg":"ES256"}', b"\xff{")


def test_claims_json_cannot_spell_elsewhere_can_be_signed(ec_key):
    _, payload, _ = parts(ec_key.sign({"exp": float("nan"), "org_id": "\ud800", "scope": None}))

    assert payload == b'{"exp":NaN,"org_id":"\\ud800","scope":null}'


def test_public_jwk_has_public_members_only(rsa_key):
    assert {"kty", "use", "alg", "kid", "n", "e"} == rsa_key.public_jwk().keys()


def test_private_jwk_makes_the_same_key_again(ec_key):
    again = SigningKey.from_jwk(ec_key.private_jwk())

    assert (ec_key.kid, ec_key.algorithm, ec_key.public_jwk()) == (again.kid, again.algorithm, again.public_jwk())


def test_repr_shows_no_key_material(ec_key):
    assert repr(ec_key) == "SigningKey(kid='ec-1', algorithm='ES256')"


def test_weak_rsa_keys_can_be_made_on_purpose():
    modulus = base64url_decode(SigningKey.generate("weak", rsa_bits=1024).public_jwk()["n"])

    assert len(modulus) == 128


@pytest.mark.parametrize("algorithm", ["HS256", "none", "ES256K", ""])
def test_other_algorithms_are_refused(algorithm):
    with pytest.raises(ValueError, match="cannot be used"):
        SigningKey.generate("k", algorithm)


def test_open_returns_the_claims(ec_key):
    assert ec_key.open(ec_key.sign(CLAIMS)) == CLAIMS


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _key, _token: "", id="nothing"),
        pytest.param(lambda _key, _token: "garbage", id="no-segments"),
        pytest.param(lambda _key, _token: "a.b.c.d.e", id="five-segments"),
        pytest.param(lambda _key, token: token[:-4], id="short-signature"),
        pytest.param(lambda _key, token: token.rpartition(".")[0] + ".", id="no-signature"),
        pytest.param(lambda _key, token: token + "é", id="not-ascii"),
        pytest.param(lambda key, _token: key.sign(CLAIMS, {"alg": "none"}), id="other-alg"),
        pytest.param(lambda key, _token: key.sign(CLAIMS, {"kid": "other"}), id="other-kid"),
        pytest.param(lambda key, _token: key.sign(CLAIMS, b"[]"), id="header-no-object"),
        pytest.param(lambda key, _token: key.sign(b"[]"), id="claims-no-object"),
        pytest.param(lambda key, _token: SigningKey.generate(key.kid, "ES256").sign(CLAIMS), id="same-kid-other-key"),
    ],
)
def test_open_refuses_what_this_key_did_not_sign(ec_key, damage):
    token = damage(ec_key, ec_key.sign(CLAIMS))

    with pytest.raises(ValueError):  # noqa: PT011 - the type is the promise
        ec_key.open(token)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"kid": None}, "kid", id="no-kid"),
        pytest.param({"kid": 5}, "kid", id="kid-no-string"),
        pytest.param({"d": None}, "not a private key", id="public-only"),
        pytest.param({"alg": "HS256"}, "alg", id="symmetric"),
        pytest.param({"alg": ["ES256"]}, "alg", id="alg-no-string"),
        pytest.param({"alg": "ES384"}, "not a private key", id="alg-of-another-curve"),
        pytest.param({"alg": "RS256"}, "not a private key", id="alg-of-another-type"),
        pytest.param({"kty": "nonsense"}, "not a private key", id="unknown-type"),
        pytest.param({"x": "AAAA"}, "not a private key", id="bad-numbers"),
    ],
)
def test_jwk_that_cannot_sign_is_refused(ec_key, changes, message):
    with pytest.raises(ValueError, match=message):
        SigningKey.from_jwk(overlay(ec_key.private_jwk(), changes))


@pytest.mark.parametrize("algorithm", ["RS256", "ES384", "EdDSA"])
def test_jwk_without_alg_gets_the_usual_one(algorithm):
    member = SigningKey.generate("k", algorithm).private_jwk()

    key = SigningKey.from_jwk(overlay(member, {"alg": None, "use": None}))

    assert algorithm == key.algorithm == key.public_jwk()["alg"]


def test_saved_keys_load_in_order(tmp_path):
    keys = [SigningKey.generate("new", "ES256"), SigningKey.generate("old", "EdDSA")]
    save_keys(tmp_path / "keys.json", keys)

    loaded = load_keys(tmp_path / "keys.json")

    assert [key.public_jwk() for key in keys] == [key.public_jwk() for key in loaded]


def test_saved_keys_are_for_the_owner_only(tmp_path, ec_key):
    save_keys(tmp_path / "keys.json", [ec_key])

    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


def test_saving_replaces_and_leaves_nothing_else(tmp_path, ec_key):
    (tmp_path / "keys.json").write_text("old")
    save_keys(tmp_path / "keys.json", [ec_key])

    assert [tmp_path / "keys.json"] == list(tmp_path.iterdir())


def test_full_disk_leaves_the_old_keys_and_nothing_else(tmp_path, ec_key, other_key):
    path = tmp_path / "keys.json"
    save_keys(path, [ec_key])
    with room_for(100), pytest.raises(ConfigError, match=r"keys\.json: cannot be written: File too large"):
        save_keys(path, [other_key])
    assert ([key.kid for key in load_keys(path)], list(tmp_path.iterdir())) == ([ec_key.kid], [path])
    save_keys(path, [other_key])

    assert [key.kid for key in load_keys(path)] == [other_key.kid]


def test_draft_of_a_process_that_was_killed_is_no_hindrance(tmp_path, ec_key):
    """In a container the next one has the same number."""
    draft = tmp_path / f"keys.json.{os.getpid()}.new"
    draft.write_text('{"keys": [')
    save_keys(tmp_path / "keys.json", [ec_key])

    assert list(tmp_path.iterdir()) == [tmp_path / "keys.json"]


def test_unwritable_key_file_is_one_clear_line(tmp_path, ec_key):
    path = tmp_path / "missing" / "keys.json"

    with pytest.raises(ConfigError, match=r"missing/keys\.json: cannot be written: No such file"):
        save_keys(path, [ec_key])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("{", "not JSON", id="not-json"),
        pytest.param("\udcff", "not JSON", id="not-utf8"),
        pytest.param("[" * 100_000, "not JSON", id="nested"),
        pytest.param("[]", "keys: must be a list", id="no-object"),
        pytest.param("{}", "keys: must be a list", id="no-keys"),
        pytest.param('{"keys": []}', "keys: must be a list", id="empty"),
        pytest.param('{"keys": [1]}', "keys: must be a list", id="no-objects"),
        pytest.param('{"keys": [{"kty": "RSA"}]}', r"keys\[0\]: kid", id="bad-key"),
    ],
)
def test_bad_key_file_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "keys.json"
    path.write_text(content, errors="surrogateescape")

    with pytest.raises(ConfigError, match=rf"^\S+keys\.json: {message}[^\n]*$"):
        load_keys(path)


def test_key_file_with_a_kid_twice_is_refused(tmp_path, ec_key):
    save_keys(tmp_path / "keys.json", [ec_key, ec_key])

    with pytest.raises(ConfigError, match=r"keys\[1\]\.kid: is given twice"):
        load_keys(tmp_path / "keys.json")


def test_missing_key_file_is_one_clear_line(tmp_path):
    with pytest.raises(ConfigError, match=r"keys\.json: cannot be read: No such file"):
        load_keys(tmp_path / "keys.json")
