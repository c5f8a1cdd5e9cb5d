"""The language of policies, as a JSON Schema, and the check of a document against it.

The schema is the one source: it is shipped as ``policy.schema.json`` for editors, and
compiled here into a check that says in words what is wrong.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from authz.call.requirements import ACTIVE_SECONDS
from authz.call.verb import VERB
from authz.call.words import IDENTIFIER, SCOPE, WORD
from authz.runtime.text.document import Fault

Schema = dict[str, Any]


def _text(description: str = "", **more: Any) -> Schema:
    return {"type": "string", **({"description": description} if description else {}), **more}


def _list(items: Schema, description: str, **more: Any) -> Schema:
    return {"type": "array", "description": description, "items": items, "uniqueItems": True, **more}


def _record(properties: Mapping[str, Schema], description: str, *required: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": dict(properties),
        "additionalProperties": False,
        **({"required": list(required)} if required else {}),
    }


def _mapping(keys: Schema, values: Schema, description: str) -> Schema:
    return {"type": "object", "description": description, "propertyNames": keys, "additionalProperties": values}


_IDENTIFIER = _text(pattern=f"^{IDENTIFIER}$", title="an identifier: visible ASCII without quotes, commas, backslashes")
_WORD = _text(pattern=f"^{WORD}$", title="a word of letters, digits, dots, hyphens")
_SCOPES = _text(pattern=f"^{SCOPE}( {SCOPE})*$", title="scopes with one space between them")
_VERB = _text(pattern=f"^{VERB}$", title="an HTTP method in capitals, such as GET")
_METHOD = _text(pattern=r"^/[^\s?#,*]+$", title="a full method name such as /grpc.health.v1.Health/Check")
_PATH_PATTERN = _text(pattern=r"^(/[^\s?#]*|\*[^\s?#]*)$", title="a method, /prefix*, *suffix or *")
_MATCHES = "each `abc`, `abc*`, `*abc`, or `*` for any text that is not empty"

_SOURCE = _record(
    {
        "principals": _list(_text(), f"Identities of the peer's certificate (A43), {_MATCHES}; empty for any."),
        "organizations": _list(_IDENTIFIER, "Organizations, by id.", minItems=1),
        "groups": _list(_WORD, "Groups of organizations.", minItems=1),
        "clients": _list(_IDENTIFIER, "M2M applications, by client id.", minItems=1),
        "scopes": _list(_SCOPES, "Sets of scopes; the token must hold all of one set.", minItems=1),
    },
    "Who calls: every condition given must match; without any, every caller matches.",
)
_HEADER = _record(
    {
        "key": _text("The name, in any case.", minLength=1),
        "values": _list(_text(), f"Values, {_MATCHES}; several headers of a name count as one.", minItems=1),
    },
    "One header (A43).",
    "key",
    "values",
)
_REQUEST = _record(
    {
        "paths": _list(_text(), f"Full method names, {_MATCHES}; empty for any."),
        "methods": _list(
            _VERB, "HTTP methods, such as GET, each exactly: HEAD is not GET. All gRPC calls are POST.", minItems=1
        ),
        "headers": {"type": "array", "description": "Headers that must all match (A43).", "items": _HEADER},
    },
    "What is called: every condition given must match; without any, every call matches.",
)
_RULE = _record(
    {
        "name": _text("Its name in logs, different from those of the other rules of the list.", minLength=1),
        "source": _SOURCE,
        "request": _REQUEST,
    },
    "One rule (A43): it matches if both its source and its request do.",
    "name",
)
_ASSURANCE = _record(
    {
        "max_age": {
            "type": "number",
            "description": "How many seconds old the issuer's answer may be; 0, the default, asks it for every call.",
            "minimum": 0,
            "maximum": ACTIVE_SECONDS,
        },
        "if_unavailable": _text(
            "If the issuer cannot be asked: deny, or local to trust the signature alone.", enum=["deny", "local"]
        ),
    },
    "How sure a method must be that a token has not been withdrawn.",
)
_QUOTA = _record(
    {
        "requests_per_second": {
            "type": "number",
            "description": "How many calls an organization may make in the long run.",
            "minimum": 0.001,
            "maximum": 1_000_000,
        },
        "burst": {
            "type": "integer",
            "description": "How many calls it may make at once; by default as many as in a second, and at least one.",
            "minimum": 1,
            "maximum": 1_000_000,
        },
        "concurrent_streams": {
            "type": "integer",
            "description": "How many streams it may have open.",
            "minimum": 1,
            "maximum": 1_000_000,
        },
    },
    "A plan: how much an organization may call, in each process that counts.",
)
_ORGANIZATION = _record(
    {
        "name": _text("Its name, for people."),
        "tenant": {**_IDENTIFIER, "description": "The API owner's own id for it, sent to backends as x-org-tenant."},
        "groups": _list(_WORD, "The groups that it belongs to, for rules to name."),
        "status": _text("suspended refuses every call of it.", enum=["active", "suspended"]),
        "quota": {**_WORD, "description": "The name of its plan in quotas; by default default_quota."},
        "labels": _mapping(_text(minLength=1), _text(), "Any other facts about it."),
    },
    "One organization.",
)
_LOGGER = _record(
    {
        "name": _text("The type of logger.", minLength=1),
        "config": {"type": "object", "description": "Its own."},
        "is_optional": {"type": "boolean", "description": "Whether to ignore it if it is unknown."},
    },
    "One audit logger (A59).",
    "name",
)
_AUDIT = _record(
    {
        "audit_condition": _text("When to log.", enum=["NONE", "ON_DENY", "ON_ALLOW", "ON_DENY_AND_ALLOW"]),
        "audit_loggers": {"type": "array", "description": "Loggers.", "items": _LOGGER},
    },
    "Audit logging (A59): checked, but otherwise ignored; use the decision log.",
)

SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Policy",
    **_record(
        {
            "name": _text("The policy's name.", minLength=1),
            "deny_rules": {"type": "array", "description": "Applied first; a match denies.", "items": _RULE},
            "allow_rules": {
                "type": "array",
                "description": "Applied next; a match allows, no match denies. Required, unless .proto files "
                "declare who may call.",
                "items": _RULE,
                "minItems": 1,
            },
            "override": {
                "type": "boolean",
                "description": "Whether the file may grant what .proto files do not; by default it may only narrow it.",
            },
            "audit_logging_options": _AUDIT,
            "public": _list(_METHOD, "Methods that anybody may call, without a token; no rule is asked."),
            "introspect": _mapping(
                _PATH_PATTERN, _ASSURANCE, "Methods whose tokens the issuer is asked about; the longest pattern counts."
            ),
            "groups": _list(_WORD, "Groups that only a directory gives to organizations."),
            "organizations": _mapping(_IDENTIFIER, _ORGANIZATION, "What is known about organizations, by id."),
            "quotas": _mapping(_WORD, _QUOTA, "Plans for organizations, by name."),
            "default_quota": {**_WORD, "description": "The plan of all other organizations, unlisted ones too."},
        },
        "Who may call what: deny rules first, then allow rules, else deny. A superset of gRFC A43's policies.",
        "name",
    ),
}


def as_json() -> str:
    """Return the text of the shipped schema."""
    return json.dumps(SCHEMA, indent=2) + "\n"


Check = Callable[[Any], None]
"""Raises a :class:`Fault` if a value is not valid."""


def compiled(schema: Schema) -> Check:
    """Return the check of values against ``schema``, for the part of JSON Schema that is used here."""
    kinds: dict[str, Callable[[Schema], Check]] = {
        "object": _check_object,
        "array": _check_array,
        "string": _check_string,
        "number": _check_number,
        "integer": _check_integer,
        "boolean": _check_boolean,
    }
    return kinds[schema["type"]](schema)


def _check_object(schema: Schema) -> Check:
    fields = {name: compiled(field) for name, field in schema.get("properties", {}).items()}
    others = schema.get("additionalProperties", True)
    check_other = compiled(others) if isinstance(others, dict) else None
    check_name = compiled(schema["propertyNames"]) if "propertyNames" in schema else None
    required = schema.get("required", ())

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise Fault(f"must be a mapping, not {_kind(value)}")
        for name, item in value.items():
            check_item = fields.get(name, check_other)
            if check_item is None:
                if others is False:
                    raise Fault(f"unknown key {name!a}{did_you_mean(name, fields)}", name)
                continue
            try:
                if check_name is not None:
                    check_name(name)
                check_item(item)
            except Fault as fault:
                raise fault.within(name) from None
        for name in required:
            if name not in value:
                raise Fault(f"{name!a} is missing")

    return check


def _check_array(schema: Schema) -> Check:
    check_item = compiled(schema["items"])
    is_set, needs_items = schema.get("uniqueItems", False), schema.get("minItems", 0) > 0

    def check(value: Any) -> None:
        if not isinstance(value, list):
            raise Fault(f"must be a list, not {_kind(value)}")
        if needs_items and not value:
            raise Fault("must not be empty: an empty list would match every caller")
        for index, item in enumerate(value):
            try:
                check_item(item)
            except Fault as fault:
                raise fault.within(index) from None
        if is_set and len(set(value)) != len(value):
            index = next(index for index, item in enumerate(value) if item in value[:index])
            raise Fault(f"{value[index]!a} is given twice", index)

    return check


def _check_string(schema: Schema) -> Check:
    pattern = re.compile(schema["pattern"].removeprefix("^").removesuffix("$")) if "pattern" in schema else None
    words, is_needed = schema.get("enum"), schema.get("minLength", 0) > 0

    def check(value: Any) -> None:
        if not isinstance(value, str):
            hint = "" if isinstance(value, dict | list) else "; put it in quotes"
            raise Fault(f"must be text, not {_kind(value)}{hint}")
        if is_needed and not value:
            raise Fault("must not be empty")
        if words is not None and value not in words:
            raise Fault(f"{value!a} must be {' or '.join(words)}{did_you_mean(value, words)}")
        if pattern is not None and not pattern.fullmatch(value):
            raise Fault(f"{value!a} is not {schema['title']}")

    return check


def _check_number(schema: Schema) -> Check:
    least, most = schema["minimum"], schema["maximum"]

    def check(value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise Fault(f"must be a number from {least:g} to {most:g}")

    return check


def _check_integer(schema: Schema) -> Check:
    least, most = schema["minimum"], schema["maximum"]

    def check(value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Fault(f"must be a whole number from {least} to {most}")

    return check


def _check_boolean(_schema: Schema) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, bool):
            raise Fault(f"must be true or false, not {_kind(value)}")

    return check


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown ``word``: the nearest of ``words``, if one is near."""
    nearest = difflib.get_close_matches(str(word), words, n=1)
    return f"; did you mean {nearest[0]!a}?" if nearest else ""


check: Check = compiled(SCHEMA)
"""Check a whole document."""
