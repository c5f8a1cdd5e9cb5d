import re

import grpc
import pytest

from authz import errors
from authz.call.reasons import MEANINGS
from authz.errors import AuthzError, Code, ConfigError

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, AuthzError)]
LEAVES = [
    pytest.param(errors.TokenMissingError(), Code.UNAUTHENTICATED, "token_missing", id="token-missing"),
    pytest.param(errors.TokenMalformedError(), Code.UNAUTHENTICATED, "token_malformed", id="token-malformed"),
    pytest.param(errors.AlgorithmNotAllowedError(), Code.UNAUTHENTICATED, "algorithm_not_allowed", id="algorithm"),
    pytest.param(errors.BadSignatureError(), Code.UNAUTHENTICATED, "signature_invalid", id="signature"),
    pytest.param(errors.KeyNotFoundError(), Code.UNAUTHENTICATED, "key_not_found", id="key"),
    pytest.param(errors.ClaimError("aud"), Code.UNAUTHENTICATED, "claim_invalid", id="claim-invalid"),
    pytest.param(errors.ClaimError("aud", missing=True), Code.UNAUTHENTICATED, "claim_missing", id="claim-missing"),
    pytest.param(errors.TokenExpiredError(), Code.UNAUTHENTICATED, "token_expired", id="expired"),
    pytest.param(errors.TokenInactiveError(), Code.UNAUTHENTICATED, "token_inactive", id="inactive"),
    pytest.param(errors.PeerUnknownError("cnf"), Code.UNAUTHENTICATED, "claim_invalid", id="peer"),
    pytest.param(errors.MeshMetadataError(), Code.UNAUTHENTICATED, "mesh_metadata_invalid", id="mesh-metadata"),
    pytest.param(errors.PermissionDeniedError(), Code.PERMISSION_DENIED, "permission_denied", id="permission"),
    pytest.param(errors.PermissionDeniedError(reason="night"), Code.PERMISSION_DENIED, "night", id="rule"),
    pytest.param(errors.ResourceExhaustedError(), Code.RESOURCE_EXHAUSTED, "quota_exceeded", id="quota"),
    pytest.param(errors.KeySetUnavailableError(), Code.UNAVAILABLE, "key_set_unavailable", id="keys"),
    pytest.param(errors.KeyUndecidedError(), Code.UNAVAILABLE, "key_undecided", id="key-undecided"),
    pytest.param(errors.OrdersUnknownError(), Code.UNAVAILABLE, "orders_unknown", id="orders"),
    pytest.param(errors.QuotaUnavailableError(), Code.UNAVAILABLE, "quota_unavailable", id="quota-unavailable"),
    pytest.param(errors.MeshUndecidedError(), Code.UNAVAILABLE, "mesh_undecided", id="mesh-undecided"),
    pytest.param(errors.OverloadedError(), Code.UNAVAILABLE, "overloaded", id="overloaded"),
    pytest.param(errors.TokenEndpointError(), Code.UNAVAILABLE, "token_endpoint_unavailable", id="endpoint"),
    pytest.param(errors.TokenDeniedError(), Code.UNAUTHENTICATED, "token_denied", id="denied"),
    pytest.param(errors.InternalError(), Code.INTERNAL, "internal", id="internal"),
]


@pytest.mark.parametrize(("error", "code", "reason"), LEAVES)
def test_each_says_its_code_and_reason(error, code, reason):
    assert (error.code, error.reason) == (code, reason)


@pytest.mark.parametrize("code", Code)
def test_codes_are_grpc_status_codes(code):
    assert grpc.StatusCode[code.name].value[0] == code.value


def test_the_base_cannot_be_raised_itself():
    with pytest.raises(TypeError, match="base class"):
        raise AuthzError


def test_the_documented_tree_is_the_tree():
    drawn = re.findall(r"\w+Error\b", errors.__doc__.partition("A message")[0])

    assert {"AuthzError", "ConfigError", "ValueError"} | {cls.__name__ for cls in CLASSES} == set(drawn)


def test_the_documented_reasons_are_those_that_have_a_meaning():
    drawn = set(re.findall(r"\b[a-z_]+\b", errors.__doc__.partition("A message")[0]))

    assert {cls.reason for cls in CLASSES if cls is not AuthzError} <= set(MEANINGS)
    assert set(MEANINGS) <= drawn
    assert {word for word in drawn if "_" in word} <= set(MEANINGS)


def test_without_a_message_the_reason_speaks():
    assert str(errors.BadSignatureError()) == "signature_invalid"


def test_claim_errors_name_the_claim():
    error = errors.ClaimError("org_id")

    assert (error.claim, str(error)) == ("org_id", "claim 'org_id' is invalid")


def test_an_expired_token_is_an_error_of_exp():
    assert errors.TokenExpiredError().claim == "exp"


def test_unavailable_says_when_to_try_again():
    assert errors.KeySetUnavailableError(retry_after=7.5).retry_after == 7.5


def test_wrong_configuration_is_no_verdict():
    assert issubclass(ConfigError, ValueError)
    assert not issubclass(ConfigError, AuthzError)
