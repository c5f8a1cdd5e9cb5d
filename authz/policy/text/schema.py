"""The language of policies, as a JSON Schema: shipped as ``authz/cli/schemas/policy.schema.json``."""

from typing import Any

from authz.call.requirements import ACTIVE_SECONDS
from authz.call.verb import VERB
from authz.call.words import IDENTIFIER, SCOPE, WORD
from authz.runtime.text.schema import Schema, compiled, listed, mapping, published, record, text, without_spaces

_ID = {
    "pattern": f"^{IDENTIFIER}$",
    "patternErrorMessage": "not an identifier: visible ASCII without quotes, commas, backslashes",
}
_NAME = {"pattern": f"^{WORD}$", "patternErrorMessage": "not a word of letters, digits, dots, hyphens"}
_ORGANIZATION_ID = text("Organization", "Its id, as tokens name it in org_id.", **_ID, examples=["org_01JYACME"])
_CLIENT_ID = text("Client", "The id of an M2M application.", **_ID, examples=["client_01JYACME"])
_GROUP = text("Group", "The name of a group of organizations.", **_NAME, examples=["trial", "paying"])
_QUOTA_NAME = text("Quota", "The name of a plan in quotas.", **_NAME, examples=["basic", "gold"])
_SCOPES = text(
    "Scopes",
    "One or several, with one space between them; the token must hold all of them.",
    pattern=f"^{SCOPE}( {SCOPE})*$",
    patternErrorMessage="not scopes with one space between them",
    examples=["ledger:read", "ledger:read ledger:write"],
)
VERB_NAME = text(
    "HTTP method",
    "In capitals.",
    pattern=f"^{VERB}$",
    patternErrorMessage="not an HTTP method in capitals, such as GET",
    examples=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
)
_METHOD = text(
    "Method",
    "A full method name, exactly.",
    pattern=without_spaces(r"^/[^\s?#,*]+$"),
    patternErrorMessage="not a full method name such as /grpc.health.v1.Health/Check",
    examples=["/grpc.health.v1.Health/Check"],
)
_METHODS = text(
    "Methods",
    "A full method name, `/prefix*`, `*suffix`, or `*` for all.",
    pattern=without_spaces(r"^(/[^\s?#]*|\*[^\s?#]*)$"),
    patternErrorMessage="not a method, /prefix*, *suffix or *",
    examples=["/ledger.v1.Ledger/Import", "/ledger.v1.Ledger/*", "*"],
)
_MATCHES = "each `abc`, `abc*`, `*abc`, or `*` for any text that is not empty"
_NEEDED: dict[str, Any] = {"minItems": 1, "$comment": "an empty list would match every caller"}

_SOURCE = record(
    "Source",
    "Who calls: every condition given must match; without any, every caller matches.",
    {
        "principals": listed(
            "Principals",
            f"Identities of the peer's certificate (A43), {_MATCHES}; empty for any.",
            text("Principal", examples=["spiffe://example.org/*"]),
        ),
        "organizations": listed("Organizations", "Organizations, by id.", _ORGANIZATION_ID, **_NEEDED),
        "groups": listed("Groups", "Groups of organizations.", _GROUP, **_NEEDED),
        "clients": listed("Clients", "M2M applications, by client id.", _CLIENT_ID, **_NEEDED),
        "scopes": listed("Scopes", "Sets of scopes; the token must hold all of one set.", _SCOPES, **_NEEDED),
    },
)
_HEADER = record(
    "Header",
    "One header (A43).",
    {
        "key": text("Name of the header", "In any case.", minLength=1, examples=["x-tier"]),
        "values": listed(
            "Values", f"Values, {_MATCHES}; several headers of a name count as one.", text("Value"), **_NEEDED
        ),
    },
    "key",
    "values",
)
_REQUEST = record(
    "Request",
    "What is called: every condition given must match; without any, every call matches.",
    {
        "paths": listed(
            "Paths",
            f"Full method names, {_MATCHES}; empty for any.",
            text("Path", examples=["/ledger.v1.Ledger/List", "/ledger.v1.Ledger/*"]),
        ),
        "methods": listed(
            "HTTP methods",
            "HTTP methods, such as GET, each exactly: HEAD is not GET. All gRPC calls are POST.",
            VERB_NAME,
            **_NEEDED,
        ),
        "headers": {
            "type": "array",
            "title": "Headers",
            "description": "Headers that must all match (A43).",
            "items": _HEADER,
        },
    },
)
_RULE = record(
    "Rule",
    "One rule (A43): it matches if both its source and its request do.",
    {
        "name": text("Name of the rule", "For logs; different from those of the other rules of the list.", minLength=1),
        "source": _SOURCE,
        "request": _REQUEST,
    },
    "name",
)
_ASSURANCE = record(
    "Assurance",
    "How sure a method must be that a token has not been withdrawn.",
    {
        "max_age": {
            "type": "number",
            "title": "Greatest age, in seconds",
            "description": "How many seconds old the issuer's answer may be; 0, the default, asks it for every call.",
            "minimum": 0,
            "maximum": ACTIVE_SECONDS,
        },
        "if_unavailable": text(
            "If the issuer cannot be asked",
            "deny, or local to trust the signature alone.",
            enum=["deny", "local"],
            enumDescriptions=["The call is refused.", "The signature alone is trusted."],
        ),
    },
)
_QUOTA = record(
    "Plan",
    "A plan: how much an organization may call, in each process that counts.",
    {
        "requests_per_second": {
            "type": "number",
            "title": "Calls per second",
            "description": "How many calls an organization may make in the long run.",
            "minimum": 0.001,
            "maximum": 1_000_000,
            "examples": [10],
        },
        "burst": {
            "type": "integer",
            "title": "Calls at once",
            "description": "How many calls it may make at once; by default as many as in a second, and at least one.",
            "minimum": 1,
            "maximum": 1_000_000,
            "examples": [20],
        },
        "concurrent_streams": {
            "type": "integer",
            "title": "Open streams",
            "description": "How many streams it may have open.",
            "minimum": 1,
            "maximum": 1_000_000,
            "examples": [5],
        },
    },
    minProperties=1,
    dependentRequired={"burst": ["requests_per_second"]},
)
_KNOWN: dict[str, Schema] = {
    "name": text("Name", "Its name, for people.", examples=["Acme Freight"]),
    "tenant": text(
        "Tenant", "The API owner's own id for it, sent to backends as x-org-tenant.", **_ID, examples=["acme-7"]
    ),
    "groups": listed("Groups", "The groups that it belongs to, for rules to name.", _GROUP),
    "status": text(
        "Status",
        "suspended refuses every call of it.",
        enum=["active", "suspended"],
        enumDescriptions=["The rules decide.", "Every call of it is refused."],
    ),
    "quota": {**_QUOTA_NAME, "description": "The name of its plan in quotas; by default default_quota."},
    "labels": mapping("Labels", "Any other facts about it.", text("Label", minLength=1), text("Value")),
}
_ORGANIZATION = record("Organization", "What is known of one organization.", _KNOWN)
# The only one in grpc-go; the decision log has what it would print.
KNOWN_LOGGERS = ("stdout_logger",)
_LOGGER = record(
    "Audit logger",
    "One audit logger (A59).",
    {
        "name": text(
            "Type of the logger", "Of another, say is_optional: true.", minLength=1, examples=[*KNOWN_LOGGERS]
        ),
        "config": {"type": "object", "title": "Configuration", "description": "The logger's own."},
        "is_optional": {
            "type": "boolean",
            "title": "Is optional",
            "description": "Whether to ignore it if it is unknown.",
        },
    },
    "name",
    **{
        "if": {"properties": {"name": {"enum": list(KNOWN_LOGGERS)}}},
        "else": {"properties": {"is_optional": {"const": True}}, "required": ["is_optional"]},
    },
)
_AUDIT = record(
    "Audit logging",
    "Audit logging (A59): checked, but otherwise ignored; use the decision log.",
    {
        "audit_condition": text("Condition", "When to log.", enum=["NONE", "ON_DENY", "ON_ALLOW", "ON_DENY_AND_ALLOW"]),
        "audit_loggers": {"type": "array", "title": "Loggers", "description": "Where to log.", "items": _LOGGER},
    },
)

SCHEMA: Schema = published(
    "policy",
    record(
        "Policy",
        "Who may call what: deny rules first, then allow rules, else deny. A superset of gRFC A43's policies.",
        {
            "name": text("Name of the policy", "For logs, and for routes of Envoy.", minLength=1, examples=["ledger"]),
            "deny_rules": {
                "type": "array",
                "title": "Deny rules",
                "description": "Applied first; a match denies.",
                "items": _RULE,
            },
            "allow_rules": {
                "type": "array",
                "title": "Allow rules",
                "description": "Applied next; a match allows, no match denies. Required, unless .proto files "
                "declare who may call.",
                "items": _RULE,
                "minItems": 1,
            },
            "override": {
                "type": "boolean",
                "title": "Override",
                "description": "Whether the file may grant what .proto files do not; by default it may only narrow it.",
            },
            "audit_logging_options": _AUDIT,
            "public": listed(
                "Public methods", "Methods that anybody may call, without a token; no rule is asked.", _METHOD
            ),
            "introspect": mapping(
                "Introspection",
                "Methods whose tokens the issuer is asked about; the longest pattern counts.",
                _METHODS,
                _ASSURANCE,
            ),
            "groups": listed("Groups", "Groups that only a directory gives to organizations.", _GROUP),
            "organizations": mapping(
                "Organizations", "What is known about organizations, by id.", _ORGANIZATION_ID, _ORGANIZATION
            ),
            "organizations_file": text(
                "File of organizations",
                "What is known about organizations, in a file of its own instead: one JSON object on each line. Its "
                "path, from the folder of this file on.",
                pattern=r"^[^\x00-\x1f\x7f]+$",
                patternErrorMessage="not the path of a file",
                examples=["organizations.jsonl"],
            ),
            "quotas": mapping("Quotas", "Plans for organizations, by name.", _QUOTA_NAME, _QUOTA),
            "default_quota": {**_QUOTA_NAME, "description": "The plan of all other organizations, unlisted ones too."},
        },
        "name",
    ),
)

check = compiled(SCHEMA)
"""Check a whole document."""

ORGANIZATION: Schema = published(
    "organization",
    record(
        "Organization",
        "What is known of one organization: a line of a policy's organizations_file.",
        {"id": _ORGANIZATION_ID, **_KNOWN},
        "id",
    ),
)
check_organization = compiled(ORGANIZATION)
"""Check a line of a file of organizations."""
