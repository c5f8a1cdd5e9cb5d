"""The gRPC authorization policy (gRFC A43, A59) means here what it means in gRPC."""

import json

import pytest

from authz.call.call import Call
from authz.call.peer import Peer
from authz.call.principal import Principal
from authz.errors import ConfigError, PeerUnknownError
from authz.policy import Policy
from authz.policy.rules import headers_of
from tests.policy.rulings import ruling_of

CALLER = Principal(org_id="org_a", client_id="client_a", subject="client_a")
TLS, PLAINTEXT = Peer(principals=("",)), Peer()

# The gRFC's own example.
EXAMPLE = {
    "name": "example-policy",
    "allow_rules": [
        {
            "name": "admin-access",
            "source": {"principals": ["spiffe://foo.com/sa/admin1", "spiffe://foo.com/sa/admin2"]},
            "request": {"paths": ["/pkg.service/*"]},
        },
        {
            "name": "dev-access",
            "source": {"principals": ["*", ""]},
            "request": {
                "paths": ["/pkg.service/foo", "/pkg.service/bar"],
                "headers": [{"key": "dev-path", "values": ["/dev/path/*"]}],
            },
        },
    ],
    "deny_rules": [{"name": "deny-access", "request": {"paths": ["*/secret"]}}],
}


def certified(*names):
    return Peer(principals=names)


def decides(policy, method, *metadata, peer=PLAINTEXT):
    """Return the name of the rule that decides, and what it says."""
    ruling = ruling_of(policy, Call(method=method, metadata=metadata, peer=peer), CALLER)
    return ruling and (ruling[0].removesuffix("_rules"), ruling[1])


def policy_of(**rule):
    return Policy.from_document({"name": "p", "allow_rules": [{"name": "r", **rule}]})


def allows(policy, method="/s/m", *metadata, peer=PLAINTEXT):
    return decides(policy, method, *metadata, peer=peer) is not None


@pytest.mark.parametrize(
    ("method", "metadata", "peer", "verdict"),
    [
        pytest.param("/pkg.service/any", [], certified("spiffe://foo.com/sa/admin1"), "admin-access", id="admin"),
        pytest.param("/pkg.service/foo", [], certified("spiffe://foo.com/sa/admin2"), "admin-access", id="other-admin"),
        pytest.param("/pkg.other/any", [], certified("spiffe://foo.com/sa/admin1"), None, id="admin-elsewhere"),
        pytest.param("/pkg.service/any", [], certified("spiffe://foo.com/sa/admin3"), None, id="no-admin"),
        pytest.param("/pkg.service/foo", ["/dev/path/x"], TLS, "dev-access", id="developer"),
        pytest.param("/pkg.service/bar", ["/dev/path/"], certified("CN=a"), "dev-access", id="certified-developer"),
        pytest.param("/pkg.service/foo", ["/dev/path/x"], PLAINTEXT, None, id="developer-without-tls"),
        pytest.param("/pkg.service/foo", ["/prod/path"], TLS, None, id="another-path"),
        pytest.param("/pkg.service/foo", [], TLS, None, id="no-header"),
        pytest.param("/pkg.service/baz", ["/dev/path/x"], TLS, None, id="another-method"),
    ],
)
def test_the_example_allows_what_the_grfc_says(method, metadata, peer, verdict):
    policy = Policy.from_document(EXAMPLE)

    decision = decides(policy, method, *[("dev-path", value) for value in metadata], peer=peer)

    assert decision == (None if verdict is None else ("allow", verdict))


def test_the_example_denies_the_secret_method_to_admins_too():
    policy = Policy.from_document(EXAMPLE)

    assert decides(policy, "/pkg.service/secret", peer=certified("spiffe://foo.com/sa/admin1")) == (
        "deny",
        "deny-access",
    )


@pytest.mark.parametrize("indent", [None, 2, "\t"], ids=["one-line", "blanks", "tabs"])
@pytest.mark.parametrize("name", ["policy.json", "policy.yaml"])
def test_the_example_is_read_however_it_is_written(tmp_path, name, indent):
    (tmp_path / name).write_text(json.dumps(EXAMPLE, indent=indent), encoding="utf-8")

    policy = Policy.from_file(tmp_path / name)

    assert policy.rules == Policy.from_document(EXAMPLE).rules
    assert policy.name == "example-policy"


@pytest.mark.parametrize(
    ("deny", "method", "decision"),
    [
        pytest.param([{"name": "d"}], "/s/m", ("deny", "d"), id="empty-deny-rule-matches-everything"),
        pytest.param([], "/s/m", ("allow", "a"), id="empty-list-denies-nothing"),
        pytest.param([{"name": "d", "request": {"paths": ["/s/n"]}}], "/s/n", ("deny", "d"), id="deny-before-allow"),
        pytest.param([{"name": "d", "request": {"paths": ["/s/n"]}}], "/s/m", ("allow", "a"), id="no-match"),
    ],
)
def test_deny_rules_are_asked_before_allow_rules(deny, method, decision):
    policy = Policy.from_document({"name": "p", "allow_rules": [{"name": "a"}], "deny_rules": deny})

    assert decides(policy, method) == decision


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("/s/m", ["/s/m"], ["/s/mm", "/s/", "", "/S/m"]),
        ("/s/*", ["/s/", "/s/m"], ["/s", "/t/m", ""]),
        ("*/m", ["/m", "/s/m"], ["/s/mm", "m", ""]),
        ("*", ["x", "*"], [""]),
        ("", [""], ["x"]),
        # What is no prefix and no suffix is exact.
        ("/a*c", ["/a*c"], ["/abc", "/ac"]),
        # grpc-go looks for the last star first.
        ("*abc*", ["*abc", "*abcd"], ["abc", "xabcx"]),
        ("**", ["*", "*x"], ["x", ""]),
    ],
)
def test_paths_match_exactly_or_by_prefix_suffix_and_presence(pattern, matched, others):
    policy = policy_of(request={"paths": [pattern]})

    assert [text for text in [*matched, *others] if allows(policy, text)] == matched


@pytest.mark.parametrize(
    ("pattern", "values", "is_allowed"),
    [
        ("a", ["a"], True),
        ("a", ["b"], False),
        ("a", ["a", "a"], False),
        ("a,b", ["a", "b"], True),
        ("b,a", ["a", "b"], False),
        ("a*", ["ab", "c"], True),
        ("*c", ["ab", "c"], True),
        ("*", ["x"], True),
        ("*", [""], False),
        ("*", [], False),
        ("", [""], True),
        ("", [], False),
    ],
)
def test_headers_of_one_name_are_one_value_with_commas(pattern, values, is_allowed):
    policy = policy_of(request={"headers": [{"key": "K", "values": [pattern]}]})

    assert allows(policy, "/s/m", *[("k", value) for value in values]) is is_allowed


def test_copies_of_a_header_are_joined_at_once():
    """Were each added to those before it, five terabytes would be copied here, which takes minutes."""
    value = "v" * 1000
    copies = Call(method="/s/m", metadata=[("k", value)] * 100_000)

    assert len(headers_of(copies)["k"]) == 100_000 * 1001 - 1


def test_all_headers_must_match_and_one_value_of_each():
    headers = [{"key": "a", "values": ["1", "2"]}, {"key": "b", "values": ["3"]}]
    policy = policy_of(request={"headers": headers})

    assert allows(policy, "/s/m", ("b", "3"), ("a", "2"))
    assert not allows(policy, "/s/m", ("a", "2"))
    assert not allows(policy, "/s/m", ("a", "3"), ("b", "3"))


def test_binary_headers_are_passed_over():
    assert allows(
        policy_of(request={"headers": [{"key": "a", "values": ["1"]}]}), "/s/m", ("b-bin", b"\xff"), ("a", "1")
    )


def test_a_header_in_capitals_is_not_overlooked():
    assert allows(policy_of(request={"headers": [{"key": "a", "values": ["1"]}]}), "/s/m", ("A", "1"))


@pytest.mark.parametrize(
    "key",
    [
        *(":path", "grpc-timeout", "Grpc-Foo", "host", "Host", "connection", "keep-alive", "proxy-authenticate"),
        *("proxy-authorization", "te", "TE", "trailer", "transfer-encoding", "upgrade"),
    ],
)
def test_headers_of_a_hop_and_of_grpc_are_errors(key):
    with pytest.raises(ConfigError, match=r"^policy: allow_rules\[0\]\.request\.headers\[0\]\.key: the header '.*' *"):
        policy_of(request={"headers": [{"key": key, "values": ["1"]}]})


def test_binary_headers_are_errors():
    """They are bytes here and base64 in Envoy, so no rule could mean the same at both doors."""
    with pytest.raises(ConfigError, match="binary"):
        policy_of(request={"headers": [{"key": "trace-bin", "values": ["*"]}]})


@pytest.mark.parametrize(
    ("principals", "peers"),
    [
        (["spiffe://a/b"], [certified("spiffe://a/b"), certified("x", "spiffe://a/b")]),
        (["spiffe://a/*"], [certified("spiffe://a/b"), certified("x", "spiffe://a/b")]),
        (["*"], [certified("spiffe://a/b"), certified("x", "spiffe://a/b"), certified("CN=a,O=b")]),
        ([""], [TLS]),
        (["*a,O=b"], [certified("CN=a,O=b")]),
    ],
)
def test_principals_are_one_of_the_peers_names(principals, peers):
    policy = policy_of(source={"principals": principals})
    everybody = [certified("spiffe://a/b"), certified("x", "spiffe://a/b"), certified("CN=a,O=b"), TLS, PLAINTEXT]

    assert [peer for peer in everybody if allows(policy, peer=peer)] == peers


@pytest.mark.parametrize("field", ["principals", "paths", "headers"])
def test_empty_lists_of_the_grfc_ask_for_nothing(field):
    policy = policy_of(**{"source" if field == "principals" else "request": {field: []}})

    assert allows(policy)


def test_a_peer_that_is_not_known_yet_is_asked_for_where_it_decides_only():
    conditions = {"request": {"headers": [{"key": "a", "values": ["1"]}]}, "source": {"principals": ["*"]}}
    policy = policy_of(**conditions)

    assert not allows(policy, peer=None)
    with pytest.raises(PeerUnknownError):
        allows(policy, "/s/m", ("a", "1"), peer=None)


@pytest.mark.parametrize("missing", ["name", "allow_rules"])
def test_a_policy_has_a_name_and_allow_rules(missing):
    document = {"name": "p", "allow_rules": [{"name": "a"}]}
    del document[missing]

    with pytest.raises(ConfigError, match=rf"^policy: '{missing}' is missing"):
        Policy.from_document(document)


@pytest.mark.parametrize("name", ["stdout_logger", "mine"])
def test_audit_loggers_are_accepted(name):
    """A59."""
    logger = {"name": name, "config": {"any": ["thing"]}, "is_optional": name == "mine"}
    options = {"audit_condition": "ON_DENY_AND_ALLOW", "audit_loggers": [logger]}

    assert Policy.from_document({**EXAMPLE, "audit_logging_options": options}).name == "example-policy"


def test_an_unknown_audit_logger_is_an_error_unless_it_is_optional():
    """A59."""
    options = {"audit_loggers": [{"name": "mine"}]}

    with pytest.raises(ConfigError, match=r"audit_loggers\[0\]\.name: unknown audit logger 'mine'; set is_optional"):
        Policy.from_document({**EXAMPLE, "audit_logging_options": options})
