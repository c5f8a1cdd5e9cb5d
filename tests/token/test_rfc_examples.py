"""The published examples of RFC 7515, RFC 7520 and RFC 8037: each passes or fails as our rules say.

``rfc_examples.json`` holds them as they are printed, secrets included.
"""

import json
import pathlib

import pytest
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from authz.errors import UnauthenticatedError
from authz.token.jwk import parse_jwk
from authz.token.jws import check_signature, parse_compact, verify_compact

EXAMPLES = json.loads(pathlib.Path(__file__).with_name("rfc_examples.json").read_text())

ALGORITHMS = ("RS256", "PS384", "ES256", "ES512", "EdDSA")

CLAIMS = b'{"iss":"joe",\r\n "exp":1300819380,\r\n "http://example.com/is_root":true}'
FRODO = (
    "It\u2019s a dangerous business, Frodo, going out your door. You step onto the road, and if you don't keep your"
    " feet, there\u2019s no knowing where you might be swept off to."
).encode()


def verdict(token, key, algorithms=ALGORITHMS):
    try:
        return verify_compact(token, key, algorithms)
    except UnauthenticatedError as error:
        return error.reason


@pytest.mark.parametrize("name", ["RFC 7520 4.1", "RFC 7520 4.2", "RFC 7520 4.3"])
def test_a_compact_jws_with_a_kid_is_verified(name):
    assert verdict(EXAMPLES[name]["token"], EXAMPLES[name]["key"]) == FRODO


@pytest.mark.parametrize(
    ("name", "algorithm", "payload"),
    [
        ("RFC 7515 A.2", "RS256", CLAIMS),
        ("RFC 7515 A.3", "ES256", CLAIMS),
        ("RFC 7515 A.4", "ES512", b"Payload"),
        ("RFC 8037 A.4", "EdDSA", b"Example of Ed25519 signing"),
    ],
)
def test_one_without_a_kid_is_malformed_unless_that_is_allowed(name, algorithm, payload):
    token, key = EXAMPLES[name]["token"], EXAMPLES[name]["key"]
    parsed = parse_compact(token, {algorithm}, require_kid=False)

    check_signature(parsed, parse_jwk(key))

    assert parsed.payload == payload
    assert verdict(token, key) == "token_malformed"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("RFC 7515 A.1", "algorithm_not_allowed", id="A.1-hs256"),
        pytest.param("RFC 7515 A.5", "algorithm_not_allowed", id="A.5-unsecured"),
        pytest.param("RFC 7515 A.6", "token_malformed", id="A.6-general-json"),
        pytest.param("RFC 7515 A.7", "token_malformed", id="A.7-flattened-json"),
        pytest.param("RFC 7515 F", "token_malformed", id="F-detached"),
        pytest.param("RFC 7520 4.4", "algorithm_not_allowed", id="4.4-hs256"),
        pytest.param("RFC 7520 4.5", "token_malformed", id="4.5-detached"),
        pytest.param("RFC 7520 4.6", "token_malformed", id="4.6-kid-not-protected"),
        pytest.param("RFC 7520 4.7", "token_malformed", id="4.7-nothing-protected"),
        pytest.param("RFC 7520 4.8", "token_malformed", id="4.8-several-signatures"),
    ],
)
def test_other_kinds_of_jws_are_refused(name, reason):
    assert verdict(EXAMPLES[name]["token"], EXAMPLES["RFC 7520 4.1"]["key"]) == reason


@pytest.mark.parametrize(("name", "algorithm"), [("RFC 7520 4.2", "PS384"), ("RFC 7520 4.3", "ES512")])
def test_an_algorithm_that_is_not_allowed_is_refused(name, algorithm):
    token, key = EXAMPLES[name]["token"], EXAMPLES[name]["key"]

    assert verdict(token, key, ["RS256"]) == "algorithm_not_allowed"
    assert verdict(token, key, [algorithm]) == FRODO


@pytest.mark.parametrize("name", ["RFC 7520 4.1", "RFC 7520 4.2", "RFC 7520 4.3"])
def test_an_example_whose_payload_was_changed_is_refused(name):
    head, payload, signature = EXAMPLES[name]["token"].split(".")
    flipped = "A" if payload[20] != "A" else "B"
    changed = f"{head}.{payload[:20]}{flipped}{payload[21:]}.{signature}"

    assert verdict(changed, EXAMPLES[name]["key"]) == "signature_invalid"


@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - {"RFC 7515 A.5"}))
def test_the_examples_are_written_down_right(name):
    """Against jwcrypto: a typo here would be a refusal for the wrong reason."""
    printed = JWS()
    printed.allowed_algs = [*ALGORITHMS, "HS256"]
    printed.deserialize(EXAMPLES[name]["token"])
    detached = None
    if not printed.objects.get("payload"):
        detached = CLAIMS if name == "RFC 7515 F" else FRODO

    printed.verify(JWK(**EXAMPLES[name]["key"]), detached_payload=detached)

    assert (detached or printed.payload) in {CLAIMS, FRODO, b"Payload", b"Example of Ed25519 signing"}
