import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from authz import errors
from authz.call.refusal import DOMAIN, Challenge, refusal_of
from authz.errors import Code, ConfigError

WORDS = "words for the developer"
CHALLENGE = Challenge(realm="api")
INVALID = 'Bearer realm="api", error="invalid_token"'
ROWS = [
    pytest.param(errors.TokenMissingError(WORDS), 401, "No token provided", 'Bearer realm="api"', id="E1-no-token"),
    pytest.param(
        errors.TokenMalformedError(WORDS),
        401,
        "Invalid token",
        'Bearer realm="api", error="invalid_request"',
        id="E2-malformed",
    ),
    pytest.param(errors.AlgorithmNotAllowedError(WORDS), 401, "Invalid token", INVALID, id="E3-algorithm"),
    pytest.param(errors.BadSignatureError(WORDS), 401, "Invalid token", INVALID, id="E3-signature"),
    pytest.param(errors.KeyNotFoundError(WORDS), 401, "Invalid token", INVALID, id="E3-key"),
    pytest.param(errors.ClaimError("aud", WORDS), 401, "Invalid token", INVALID, id="E3-claim"),
    pytest.param(errors.TokenExpiredError(), 401, "Invalid token", INVALID, id="E3-expired"),
    pytest.param(errors.PeerUnknownError("cnf"), 401, "Invalid token", INVALID, id="E3-peer"),
    pytest.param(errors.TokenInactiveError(WORDS), 401, "Invalid token", INVALID, id="E3-inactive"),
    pytest.param(errors.MeshMetadataError(WORDS), 401, "Invalid token", INVALID, id="J5-mesh-metadata"),
    pytest.param(
        errors.PermissionDeniedError(WORDS),
        403,
        "Permission denied",
        'Bearer realm="api", error="insufficient_scope"',
        id="E4-permission",
    ),
    pytest.param(
        errors.InsufficientScopeError({"b", "a:1"}),
        403,
        "Permission denied",
        'Bearer realm="api", error="insufficient_scope", scope="a:1 b"',
        id="E4-scopes",
    ),
    pytest.param(errors.ResourceExhaustedError(WORDS), 429, "Quota exceeded", None, id="Q4-quota"),
    pytest.param(errors.KeySetUnavailableError(WORDS), 503, "Authorization is unavailable", None, id="E5-keys"),
    pytest.param(errors.KeyUndecidedError(WORDS), 503, "Authorization is unavailable", None, id="R5-key-undecided"),
    pytest.param(errors.MeshUndecidedError(WORDS), 503, "Authorization is unavailable", None, id="J6-mesh-undecided"),
    pytest.param(errors.OverloadedError(WORDS), 503, "Authorization is unavailable", None, id="overloaded"),
    pytest.param(errors.TokenEndpointError(WORDS), 503, "Authorization is unavailable", None, id="E5-endpoint"),
    pytest.param(errors.InternalError(WORDS), 500, "Internal error", None, id="E6-internal"),
]


def details_of(refusal):
    """Return the status, and its details by type."""
    status = Status.FromString(refusal.details)
    unpacked = {}
    for detail in status.details:
        for kind in (ErrorInfo, RetryInfo):
            if detail.Is(kind.DESCRIPTOR):
                message = kind()
                detail.Unpack(message)
                unpacked[kind] = message
    return status, unpacked


@pytest.mark.parametrize(("error", "http_status", "message", "challenge"), ROWS)
def test_each_outcome_has_its_words(error, http_status, message, challenge):
    refusal = refusal_of(error, CHALLENGE)

    assert (refusal.code, refusal.http_status, refusal.message) == (error.code, http_status, message)
    assert dict(refusal.headers).get("www-authenticate") == challenge


@pytest.mark.parametrize(("error", "_http_status", "message", "_challenge"), ROWS)
def test_the_reason_is_there_for_machines(error, _http_status, message, _challenge):
    status, details = details_of(refusal_of(error, CHALLENGE))

    assert (status.code, status.message) == (StatusCode[error.code.name].value[0], message)
    assert details[ErrorInfo] == ErrorInfo(reason=error.reason.upper(), domain=DOMAIN)


@pytest.mark.parametrize(("error", "_http_status", "_message", "_challenge"), ROWS)
def test_no_refusal_quotes_the_error(error, _http_status, _message, _challenge):
    refusal = refusal_of(error, CHALLENGE)

    assert WORDS not in repr(refusal)
    assert WORDS.encode() not in refusal.details


@pytest.mark.parametrize(("error", "_http_status", "_message", "_challenge"), ROWS)
def test_headers_are_visible_ascii_in_lower_case_names(error, _http_status, _message, _challenge):
    for key, value in refusal_of(error, CHALLENGE).headers:
        assert key == key.lower()
        assert value.isascii()
        assert value.isprintable()


@pytest.mark.parametrize(("seconds", "hint"), [(0.0, 1), (0.4, 1), (1.0, 1), (1.1, 2), (59.5, 60), (3600.0, 60)])
def test_an_outage_says_when_to_try_again(seconds, hint):
    refusal = refusal_of(errors.KeySetUnavailableError(retry_after=seconds), CHALLENGE)
    _, details = details_of(refusal)

    assert refusal.headers == (("retry-after", str(hint)),)
    assert details[RetryInfo].retry_delay.seconds == hint


@pytest.mark.parametrize(
    ("seconds", "delay", "header"),
    [
        (0.0, 0.05, "1"),
        (0.001, 0.05, "1"),
        (0.05, 0.05, "1"),
        (0.15, 0.15, "1"),
        (0.151, 0.2, "1"),
        (0.9, 0.9, "1"),
        (1.0, 1.0, "1"),
        (1.2, 2.0, "2"),
        (59.5, 60.0, "60"),
        (61.0, 120.0, "120"),
        (1e9, 3600.0, "3600"),
    ],
)
def test_a_quota_says_when_there_is_room_and_never_too_early(seconds, delay, header):
    refusal = refusal_of(errors.ResourceExhaustedError(retry_after=seconds), CHALLENGE)
    _, details = details_of(refusal)

    assert details[RetryInfo].retry_delay.ToTimedelta().total_seconds() == delay
    assert refusal.headers == (("retry-after", header),)


@pytest.mark.parametrize(
    ("error", "pushback"),
    [
        (errors.KeySetUnavailableError(retry_after=2.5), "3000"),
        (errors.OverloadedError(), "1000"),
        (errors.ResourceExhaustedError(retry_after=0.15), "150"),
        (errors.ResourceExhaustedError(retry_after=60.0), "60000"),
        (errors.ResourceExhaustedError(retry_after=61.0), "-1"),
        (errors.TokenExpiredError(), None),
        (errors.PermissionDeniedError(), None),
        (errors.InternalError(), None),
    ],
)
def test_retry_policies_of_grpc_wait_as_long_or_make_no_attempt(error, pushback):
    """E12: gRFC A6; for HTTP it means nothing."""
    refusal = refusal_of(error, CHALLENGE)

    assert dict(refusal.trailers).get("grpc-retry-pushback-ms") == pushback
    assert "grpc-retry-pushback-ms" not in dict(refusal.headers)


def test_waits_for_quotas_make_few_refusals():
    waits = [number / 1000 for number in range(1, 7_200_000, 97)]

    assert len({refusal_of(errors.ResourceExhaustedError(retry_after=wait), CHALLENGE) for wait in waits}) < 150


@pytest.mark.parametrize("error", [errors.TokenMissingError(), errors.PermissionDeniedError(), errors.InternalError()])
def test_only_an_outage_may_be_retried(error):
    refusal = refusal_of(error, CHALLENGE)

    assert RetryInfo not in details_of(refusal)[1]
    assert "retry-after" not in dict(refusal.headers)


def test_a_denied_rule_is_named_to_machines():
    _, details = details_of(refusal_of(errors.PermissionDeniedError(reason="no_writes_at_night"), CHALLENGE))

    assert details[ErrorInfo].reason == "NO_WRITES_AT_NIGHT"


def test_the_trailers_are_the_headers_and_the_details():
    refusal = refusal_of(errors.TokenMissingError(), CHALLENGE)

    assert refusal.trailers == (*refusal.headers, ("grpc-status-details-bin", refusal.details))


def test_every_code_has_its_words():
    assert {row.values[0].code for row in ROWS} == set(Code)


@pytest.mark.parametrize("realm", ["api", "Ledger of Acme, Inc.", "a/b?c=d", "~"])
def test_a_realm_is_printable(realm):
    assert Challenge(realm=realm).text == f'Bearer realm="{realm}"'


@pytest.mark.parametrize("realm", ["", 'api", error="none', "a\\", "a\r\nset-cookie: b", "é", "\x7f", "api\n"])
def test_a_realm_cannot_break_out_of_its_quotes(realm):
    with pytest.raises(ConfigError, match=r"^realm: "):
        Challenge(realm=realm)


RESOURCE_METADATA = "https://api.acme.example/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("error", "rest"),
    [
        (errors.TokenMissingError(), ""),
        (errors.TokenMalformedError(), ', error="invalid_request"'),
        (errors.TokenExpiredError(), ', error="invalid_token"'),
        (errors.PermissionDeniedError(), ', error="insufficient_scope"'),
    ],
)
def test_a_challenge_points_to_the_resource_metadata(error, rest):
    """G6: RFC 9728 section 5.1."""
    refusal = refusal_of(error, Challenge(resource_metadata=RESOURCE_METADATA))

    expected = f'Bearer realm="api", resource_metadata="{RESOURCE_METADATA}"{rest}'
    assert dict(refusal.headers)["www-authenticate"] == expected


def test_an_outage_points_nowhere():
    refusal = refusal_of(errors.KeySetUnavailableError(), Challenge(resource_metadata=RESOURCE_METADATA))

    assert RESOURCE_METADATA not in repr(refusal)


def test_challenges_are_not_mixed_up():
    """Refusals are remembered, by challenge."""
    with_pointer, without = Challenge(resource_metadata=RESOURCE_METADATA), Challenge()
    pointers = [
        "resource_metadata" in repr(refusal_of(errors.TokenMissingError(), challenge).headers)
        for challenge in (with_pointer, without, with_pointer)
    ]

    assert pointers == [True, False, True]


@pytest.mark.parametrize(
    "url",
    [
        *("http://api.acme.example/", "api.acme.example", "/.well-known/oauth-protected-resource", "ftp://a/", " "),
        *(f'{RESOURCE_METADATA}", error="none', f"{RESOURCE_METADATA}\\", f"{RESOURCE_METADATA}\r\na: b"),
        *("https://user:secret@api.acme.example/", f"{RESOURCE_METADATA}#x", "https://api.acme.example/é"),
    ],
)
def test_resource_metadata_is_an_https_url_that_stays_in_its_quotes(url):
    with pytest.raises(ConfigError, match=r"^resource_metadata: "):
        Challenge(resource_metadata=url)


@pytest.mark.parametrize("scope", ['"', "a\\", "\r\nx-org-id: org_2", "\x7f", "\u00e9", ""])
def test_a_scope_that_is_none_does_not_get_into_the_challenge(scope):
    [challenge] = refusal_of(errors.InsufficientScopeError({scope}), CHALLENGE).headers

    assert challenge.value == 'Bearer realm="api", error="insufficient_scope"'
