"""The JSON Schema of policies accepts what the loader accepts, and rejects what it rejects."""

from typing import Any

import pytest

from authz.errors import ConfigError
from authz.policy import Policy
from authz.policy.text.schema import SCHEMA
from tests.house.schemas import validator_of
from tests.policy.test_a43 import EXAMPLE

RULE = {"name": "r"}
SOURCE = {
    "principals": ["spiffe://a/*"],
    "organizations": ["org_a"],
    "groups": ["g"],
    "clients": ["client_a"],
    "scopes": ["a b", "c"],
}
REQUEST = {"paths": ["/s/*"], "methods": ["GET", "M-SEARCH"], "headers": [{"key": "x", "values": ["1"]}]}
ORGANIZATION = {"tenant": "t", "groups": ["g"], "status": "active", "labels": {"plan": "pro"}, "quota": "gold"}
QUOTA = {"requests_per_second": 10, "burst": 20, "concurrent_streams": 5}
FULL = {
    "name": "full",
    "deny_rules": [],
    "allow_rules": [{"name": "r", "source": SOURCE, "request": REQUEST}],
    "audit_logging_options": {
        "audit_condition": "ON_DENY",
        "audit_loggers": [{"name": "stdout_logger", "config": {"a": [1]}, "is_optional": True}],
    },
    "public": ["/s/m"],
    "introspect": {"/s/m": {"max_age": 1.5, "if_unavailable": "local"}, "*": {}},
    "organizations": {"org_a": ORGANIZATION, "org_b": {}},
    "quotas": {"gold": QUOTA, "basic": {"requests_per_second": 0.5}},
    "default_quota": "basic",
}


def policy(**changes: Any) -> Any:
    return {**FULL, **changes}


def with_rule(**changes: Any) -> Any:
    return policy(allow_rules=[{**RULE, **changes}])


def with_organization(**changes: Any) -> Any:
    return policy(organizations={"org_a": {**ORGANIZATION, **changes}})


def with_quota(**changes: Any) -> Any:
    return policy(quotas={**FULL["quotas"], "gold": {**QUOTA, **changes}})


ACCEPTED = {
    "example": EXAMPLE,
    "full": FULL,
    "least": {"name": "p", "allow_rules": [RULE]},
    "empty-lists": {"name": "p", "allow_rules": [{**RULE, "source": {"principals": []}, "request": {"paths": []}}]},
    "no-conditions": {"name": "p", "allow_rules": [{**RULE, "source": {}, "request": {}}]},
}
REJECTED = {
    "list": [],
    "null": None,
    "no-rules": policy(allow_rules=[]),
    "empty-name": policy(name=""),
    "number-as-name": policy(name=1),
    "unknown-key": policy(rules=[]),
    "unknown-key-of-rule": with_rule(scopes=["a"]),
    "unknown-key-of-source": with_rule(source={"scope": ["a"]}),
    "unknown-key-of-request": with_rule(request={"path": ["/a"]}),
    "rule-without-a-name": policy(allow_rules=[{}]),
    "null-as-list": with_rule(source={"organizations": None}),
    "text-as-list": with_rule(source={"organizations": "org_a"}),
    **{f"empty-{key}": with_rule(source={key: []}) for key in ("organizations", "groups", "clients", "scopes")},
    **{
        f"methods-{name}": with_rule(request={"methods": methods})
        for name, methods in {
            "empty": [],
            "small": ["get"],
            "twice": ["GET", "GET"],
            "pattern": ["GE*"],
            "any": ["*"],
            "nothing": [""],
            "long": ["A" * 33],
            "text": "GET",
            "blank": ["GET POST"],
            "comma": ["GET,POST"],
        }.items()
    },
    "unknown-key-like-methods": with_rule(request={"method": ["GET"]}),
    "item-twice": with_rule(request={"paths": ["/a", "/a"]}),
    "header-without-values": with_rule(request={"headers": [{"key": "a", "values": []}]}),
    "header-without-a-key": with_rule(request={"headers": [{"values": ["a"]}]}),
    "header-with-an-empty-key": with_rule(request={"headers": [{"key": "", "values": ["a"]}]}),
    "two-blanks-between-scopes": with_rule(source={"scopes": ["a  b"]}),
    "blank-in-organization": with_rule(source={"organizations": ["org a"]}),
    "pattern-in-public": policy(public=["/s/*"]),
    "no-method-in-public": policy(public=["s"]),
    "no-pattern-in-introspect": policy(introspect={"s": {}}),
    "max-age-below": policy(introspect={"*": {"max_age": -1}}),
    "max-age-above": policy(introspect={"*": {"max_age": 30.5}}),
    "max-age-boolean": policy(introspect={"*": {"max_age": True}}),
    "unknown-fallback": policy(introspect={"*": {"if_unavailable": "allow"}}),
    "unknown-status": with_organization(status="deleted"),
    "comma-in-tenant": with_organization(tenant="a,b"),
    "empty-tenant": with_organization(tenant=""),
    "number-as-label": with_organization(labels={"a": 1}),
    "empty-label": with_organization(labels={"": "a"}),
    "blank-in-group": with_organization(groups=["a b"]),
    "odd-organization": policy(organizations={"org a": {}}),
    "rate-of-nothing": with_quota(requests_per_second=0),
    "half-a-burst": with_quota(burst=1.5),
    "no-streams": with_quota(concurrent_streams=0),
    "burst-without-a-rate": policy(quotas={**FULL["quotas"], "gold": {"burst": 5}}),
    "plan-without-limits": policy(quotas={**FULL["quotas"], "gold": {}}),
    "blank-at-the-end": with_organization(tenant="t\n"),
    "unknown-logger": policy(audit_logging_options={"audit_loggers": [{"name": "x"}]}),
    "no-break-space-in-public": policy(public=["/s\u00a0m"]),
    "byte-order-mark-in-public": policy(public=["/s\ufeff"]),
    "unknown-key-of-quota": with_quota(per_minute=5),
    "blank-in-quota": with_organization(quota="go ld"),
    "unknown-condition": policy(audit_logging_options={"audit_condition": "ALWAYS"}),
    "logger-without-a-name": policy(audit_logging_options={"audit_loggers": [{}]}),
    "logger-is-perhaps-optional": policy(
        audit_logging_options={"audit_loggers": [{"name": "stdout_logger", "is_optional": "no"}]}
    ),
}

VALIDATOR = validator_of(SCHEMA)


@pytest.mark.parametrize("document", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_both_accept_the_same(document: Any) -> None:
    VALIDATOR.validate(document)

    assert Policy.from_document(document).name == document["name"]


@pytest.mark.parametrize("document", REJECTED.values(), ids=REJECTED.keys())
def test_both_reject_the_same(document: Any) -> None:
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(ConfigError):
        Policy.from_document(document)
