"""The forms in which a key set is configured, and the keys that never change."""

import json
import math
import os

import pytest

from authz.errors import ConfigError, KeyNotFoundError
from authz.issuer.keys import KeySetHealth, StaticKeySet, load_jwks
from authz.runtime.flow import run
from tests.doubles import jwks


def find(keys, kid="ec-1"):
    """Return the key, for which nobody may wait."""
    with pytest.raises(StopIteration) as stopped:
        next(keys.find(kid))
    return stopped.value.value


def dropped(caplog):
    return [record.fields for record in caplog.records if record.event == "jwks_key_dropped"]


# ---- Reading a key set ----


@pytest.mark.parametrize(
    ("document", "message"),
    [
        pytest.param({}, "array 'keys'", id="no-keys"),
        pytest.param({"keys": []}, "it is empty", id="empty"),
        pytest.param({"keys": [{"kty": "oct", "kid": "k"}]}, "key 'k': a secret", id="unfit"),
        pytest.param({"keys": [{}] * 65}, "more than 64", id="too-many"),
        pytest.param("[]", r"file '\[\]' cannot be read", id="text-of-no-object"),
        pytest.param("{", "the JSON text is not JSON", id="no-json"),
        pytest.param('{"keys":' + "[" * 200_000, "the JSON text is not JSON", id="deep"),
        pytest.param(os.curdir, "Is a directory", id="folder"),
        pytest.param("jwks\0.json", "cannot be read", id="impossible-name"),
    ],
)
def test_a_set_that_verifies_nothing_is_named_by_its_setting(document, message):
    with pytest.raises(ConfigError, match=rf"^some_setting: .*{message}"):
        load_jwks(document, "some_setting")


def test_text_object_and_file_give_the_same_keys(ec_key, tmp_path):
    document = jwks(ec_key)
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    rings = [load_jwks(form, "jwks") for form in (document, json.dumps(document), str(path), path)]

    assert all(ring == rings[0] for ring in rings)
    assert set(rings[0].keys) == {"ec-1"}


@pytest.mark.parametrize("form", [lambda path: path, lambda path: path.read_text(encoding="utf-8")])
def test_a_byte_order_mark_does_not_matter(ec_key, tmp_path, form):
    """Some editors write one, and RFC 8259 section 8.1 lets a reader skip it."""
    path = tmp_path / "jwks.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(jwks(ec_key)).encode())

    assert set(load_jwks(form(path), "jwks").keys) == {"ec-1"}


@pytest.mark.parametrize("give", [lambda document: document, json.dumps], ids=["object", "text"])
def test_a_key_dropped_while_reading_is_logged_with_its_source(ec_key, caplog, give):
    load_jwks(give({"keys": [{"kid": "bad"}, ec_key.public_jwk()]}), "jwks")

    (fields,) = dropped(caplog)
    assert (fields["kid"], fields["source"]) in {("bad", "the value"), ("bad", "the JSON text")}


def test_a_key_dropped_from_a_file_is_logged_with_its_name(ec_key, tmp_path, caplog):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [{"kid": "bad"}, ec_key.public_jwk()]}), encoding="utf-8")
    load_jwks(path, "jwks")

    assert [(fields["kid"], "jwks.json" in fields["source"]) for fields in dropped(caplog)] == [("bad", True)]


# ---- Keys that never change ----


@pytest.fixture
def static(ec_key):
    return StaticKeySet(load_jwks(jwks(ec_key), "jwks"))


def test_static_keys_are_found_without_waiting(static):
    run(static.load())

    assert find(static).kid == "ec-1"


def test_a_kid_outside_the_static_set_is_not_found(static):
    with pytest.raises(KeyNotFoundError):
        run(static.find("nobody"))


def test_the_algorithm_chooses_among_static_keys_of_one_kid(ec_key, rsa_key):
    keys = StaticKeySet(load_jwks({"keys": [ec_key.public_jwk(), {**rsa_key.public_jwk(), "kid": "ec-1"}]}, "jwks"))

    assert [run(keys.find("ec-1", name)).algorithms for name in ("ES256", "RS256")] == [{"ES256"}, {"RS256"}]
    assert (keys.health().keys, keys.health().kids) == (2, ("ec-1",))
    with pytest.raises(KeyNotFoundError, match="other algorithms"):
        run(keys.find("ec-1", "PS256"))


def test_static_keys_are_held(static, ec_key):
    assert static.holds(find(static))
    assert not static.holds(find(StaticKeySet(load_jwks(jwks(ec_key), "jwks"))))


def test_static_keys_are_always_ready_and_last_for_ever(static):
    assert static.health() == KeySetHealth(is_ready=True, keys=1, age=None, lasts=math.inf, error="", kids=("ec-1",))


def test_closing_static_keys_changes_nothing(static):
    static.close()

    assert find(static).kid == "ec-1"
