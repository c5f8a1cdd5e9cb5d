"""Writes the JSON Schemas of ``authz/schemas/`` from the languages in the code: ``make schemas``."""

import sys
from collections.abc import Mapping
from pathlib import Path

from authz.demo.issuer import directory
from authz.policy.explain import cases
from authz.policy.text import schema
from authz.runtime.text.schema import Schema, as_json

FOLDER = Path(__file__).parents[2] / "authz/schemas"
SCHEMAS: Mapping[str, Schema] = {
    "policy": schema.SCHEMA,
    "policy-test": cases.SCHEMA,
    "organizations": directory.SCHEMA,
}


def name_of(path: Path) -> str:
    """Return the name of the schema in a file."""
    return path.name.removesuffix(".schema.json")


def write() -> None:
    """Write each schema into its file."""
    for name, content in SCHEMAS.items():
        (FOLDER / f"{name}.schema.json").write_text(as_json(content), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(write())
