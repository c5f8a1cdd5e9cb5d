"""Writes the JSON Schemas of ``authz/cli/schemas/`` from the languages in the code: ``make schemas``."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema

from authz.demo.issuer import directory
from authz.policy.explain import cases
from authz.policy.text import schema
from authz.runtime.text.schema import Schema, as_json

FOLDER = Path(__file__).parents[2] / "authz/cli/schemas"
SCHEMAS: Mapping[str, Schema] = {
    "policy": schema.SCHEMA,
    "policy-test": cases.SCHEMA,
    "organization": schema.ORGANIZATION,
    "organizations": directory.SCHEMA,
}


def validator_of(schema: Schema) -> Any:
    """Return a validator whose ``$`` is the end of the text, as in an editor's, and not before a last line break."""

    def pattern(_validator: Any, pattern: str, value: Any, _schema: Schema) -> Iterator[jsonschema.ValidationError]:
        if isinstance(value, str) and not re.search(rf"{pattern.removesuffix('$')}\Z", value):
            yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")

    strict = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": pattern})
    return strict(schema)


def write() -> None:
    """Write each schema into its file."""
    for name, content in SCHEMAS.items():
        (FOLDER / f"{name}.schema.json").write_text(as_json(content), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(write())
