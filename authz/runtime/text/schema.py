"""The languages of the files that people write, as JSON Schemas, and the check of a document against one.

Each schema is the one source of its language: it is shipped in ``authz/cli/schemas/`` for editors, and compiled here
into a check that says in words what is wrong.
"""

import difflib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from authz.runtime.text.document import Fault

Schema = dict[str, Any]

BASE = "https://grpc-org-authz.dev/latest/schemas/"
"""Where the names of schemas begin; it makes them unique, and nothing here asks it."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_MOST_COMPARED = 10_000
_SPACE = r"\s\x00-\x20\x7f-\xa0\ufeff"
"""For a class in a pattern: what Python or ECMAScript calls a blank, and control characters."""


def published(name: str, schema: Schema) -> Schema:
    """Return ``schema`` as a file of its own, ``NAME.schema.json``."""
    return {"$schema": DIALECT, "$id": f"{BASE}{name}.schema.json", **schema}


def modeline(name: str) -> str:
    """Return the comment by which a YAML file tells an editor its schema."""
    return f"# yaml-language-server: $schema={BASE}{name}.schema.json"


def as_json(schema: Schema) -> str:
    """Return the text of the file of a schema."""
    return json.dumps(schema, indent=2) + "\n"


def text(title: str, description: str = "", **more: Any) -> Schema:
    """Return the schema of text.

    Args:
        title: a noun for people; editors show it.
        description: what it means.
        more: further keywords. With ``pattern``, give ``patternErrorMessage``, which goes on after "is". What is
            ``writeOnly`` is a secret, which no error repeats.

    """
    return {"type": "string", **_words(title, description), **more}


def listed(title: str, description: str, items: Schema, **more: Any) -> Schema:
    """Return the schema of a list whose items are different."""
    return {"type": "array", **_words(title, description), "items": items, "uniqueItems": True, **more}


def record(title: str, description: str, properties: Mapping[str, Schema], *required: str, **more: Any) -> Schema:
    """Return the schema of a mapping with known keys."""
    return {
        "type": "object",
        **_words(title, description),
        "properties": dict(properties),
        "additionalProperties": False,
        **({"required": list(required)} if required else {}),
        **more,
    }


def mapping(title: str, description: str, keys: Schema, values: Schema, **more: Any) -> Schema:
    """Return the schema of a mapping with any keys of a kind."""
    shape = {"propertyNames": keys, "additionalProperties": values}
    return {"type": "object", **_words(title, description), **shape, **more}


def without_spaces(pattern: str) -> str:
    r"""Return ``pattern`` with all blanks for ``\s``: those of Python and of ECMAScript, where an editor runs it."""
    return pattern.replace(r"\s", _SPACE)


def _words(title: str, description: str) -> dict[str, str]:
    return {"title": title, **({"description": description} if description else {})}


Check = Callable[[Any], None]
"""Raises a :class:`Fault` if a value is not valid."""


def compiled(schema: Schema) -> Check:
    """Return the check of values against ``schema``, for the part of JSON Schema that is used here.

    What a condition says (``if``), and what keys need others or are needed at least, the reader of the file checks.
    """
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
    because = f": {schema['$comment']}" if "$comment" in schema else ""

    def check(value: Any) -> None:
        if not isinstance(value, list):
            raise Fault(f"must be a list, not {_kind(value)}")
        if needs_items and not value:
            raise Fault(f"must not be empty{because}")
        for index, item in enumerate(value):
            try:
                check_item(item)
            except Fault as fault:
                raise fault.within(index) from None
        if is_set and len(set(value)) != len(value):
            raise _given_twice(value)

    return check


def _given_twice(items: list[Any]) -> Fault:
    # In one pass: a list may name all organizations.
    first: dict[Any, int] = {}
    index = next(index for index, item in enumerate(items) if first.setdefault(item, index) != index)
    return Fault(f"{items[index]!a} is given twice", index)


def _check_string(schema: Schema) -> Check:
    pattern = re.compile(schema["pattern"].removeprefix("^").removesuffix("$")) if "pattern" in schema else None
    words, is_needed = schema.get("enum"), schema.get("minLength", 0) > 0
    is_secret = schema.get("writeOnly", False)

    def check(value: Any) -> None:
        if not isinstance(value, str):
            hint = "" if isinstance(value, dict | list) else "; put it in quotes"
            raise Fault(f"must be text, not {_kind(value)}{hint}")
        if is_needed and not value:
            raise Fault("must not be empty")
        if words is not None and value not in words:
            raise Fault(f"{value!a} must be {' or '.join(words)}{did_you_mean(value, words)}")
        if pattern is not None and not pattern.fullmatch(value):
            quoted = "the secret" if is_secret else f"{value!a}"
            raise Fault(f"{quoted} is {schema['patternErrorMessage']}")

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
    """Return the end of a sentence about an unknown ``word``: the nearest of ``words``, if one is near.

    Of very many words the first thousands are compared, for each takes microseconds.
    """
    words = itertools.islice(words, _MOST_COMPARED)
    nearest = difflib.get_close_matches(str(word), words, n=1)
    return f"; did you mean {nearest[0]!a}?" if nearest else ""
