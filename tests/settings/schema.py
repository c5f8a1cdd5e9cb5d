"""Write the schema of a file of settings: ``python -m tests.settings.schema authz/cli/schemas/config.schema.json``."""

import json
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from authz.settings.config_file import KEYS
from authz.settings.groups import GROUPS
from authz.settings.issuers import KEYS as KEYS_OF_ISSUER
from authz.settings.issuers import ListedIssuer
from authz.settings.settings import Settings
from authz.settings.types import type_of

ID = "https://grpc-org-authz.dev/latest/schemas/config.schema.json"

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
_TEXTS = {"anyOf": [{"$ref": "#/$defs/text"}, {"type": "array", "items": {"$ref": "#/$defs/text"}, "minItems": 1}]}
_ORGANIZATIONS = (
    "The organizations that the issuer may name: a pattern, or a list of their ids. Required if there are several "
    "issuers that do not share them."
)


def document() -> dict[str, Any]:
    """Return the schema of the whole file."""
    issuer = {name: _schema(ListedIssuer.model_fields[name]) for name in _ordered(KEYS_OF_ISSUER - {"organizations"})}
    issuer["organizations"] = {"description": _ORGANIZATIONS, **_TEXTS}
    settings = {name: _schema(Settings.model_fields[name]) for name in _ordered(KEYS)}
    listed = {"type": "array", "items": {"$ref": "#/$defs/issuer"}, "minItems": 1}
    about = settings["issuers"].pop("description")
    settings["issuers"] = {"description": about, "anyOf": [{"$ref": "#/$defs/text"}, listed]}
    settings["shared_organizations"] = {
        "description": "Each of the issuers that this file lists may name the organizations of all others.",
        "type": "boolean",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "Settings of `authz serve`",
        "description": "A file for --config or AUTHZ_CONFIG: YAML, TOML or JSON.",
        "type": "object",
        "properties": settings,
        "additionalProperties": False,
        "dependentSchemas": {
            "shared_organizations": {"properties": {"issuers": {"type": "array"}}, "required": ["issuers"]}
        },
        "$defs": {
            # Neither blank nor in quotes, which would be part of it.
            "text": {"type": "string", "pattern": r"\S", "not": {"pattern": r"^\s*(\"[\s\S]*\"|'[\s\S]*')\s*$"}},
            "issuer": {
                "type": "object",
                "properties": issuer,
                "required": ["issuer", "audience"],
                "additionalProperties": False,
            },
        },
    }


def text() -> str:
    """Return it as the text of the file."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def _ordered(names: frozenset[str]) -> list[str]:
    return [name for group in GROUPS.values() for name in group if name in names]


def _schema(field: FieldInfo) -> dict[str, Any]:
    about = {"description": field.description} if field.description else {}
    default = {} if field.default in (None, "", []) else {"default": field.default}
    kind = type_of(field.annotation)
    if kind is list:
        return {**about, **_TEXTS, **default}
    choices = next(
        (part for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) is Literal), None
    )
    if choices is not None:
        return {**about, "enum": list(get_args(choices)), **default}
    if kind is str:
        return {**about, "$ref": "#/$defs/text", **default}
    words = {"ge": "minimum", "le": "maximum"}
    bounds = {
        word: getattr(part, name) for part in field.metadata for name, word in words.items() if hasattr(part, name)
    }
    return {**about, "type": _TYPES[kind], **bounds, **default}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
