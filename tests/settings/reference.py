"""Write docs/settings.md: ``python -m tests.settings.reference docs/settings.md`` (``make settings``)."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from authz.settings import variables
from authz.settings.environment import flag
from authz.settings.groups import GROUPS
from authz.settings.settings import Settings

INTRODUCTION = """\
# Settings

Every setting of `authz serve`. `make settings` generates this file from the code; `authz serve --help` shows the same.

A setting is a flag (`--jwks-url`), a variable (`AUTHZ_JWKS_URL`), or a line `AUTHZ_JWKS_URL=…` in the file that
`--env-file` or `AUTHZ_ENV_FILE` names. A flag overrides a variable, and a variable overrides the file.

- Only the issuer and the audience are required, or `issuers` instead of both.
- Where a setting takes several values, repeat the flag, or write commas between the values of the variable.
- A flag without a value, such as `--discover`, turns a setting on, and `--no-discover` turns it off; its variable takes
  `true` or `false`.
- A secret has no flag, because flags show in the list of processes. Give it as a variable or in a file.
- An unknown variable `AUTHZ_…`, an empty value and a value in quotes are [errors](envoy.md#settings).

`authz serve --check-config` checks all settings and prints those in force, without secrets.
"""

CLIENT: Mapping[str, str] = {
    "client_id": "The client ID of the application.",
    "client_secret": "Its secret.",
    "client_secret_file": "A file that holds it instead; read for each token, so a new secret needs no restart.",
    "scope": "The scopes to ask for, with spaces between them. By default, all that the application has.",
    "token_resource": "What the token is for, as one URI or several with spaces between them (RFC 8707).",
    "token_audience": "What the token is for, for issuers that call it audience, such as Auth0.",
    "token_url": "Where tokens are fetched, if not at `{issuer}/oauth2/token`.",
}
"""What programs that fetch tokens read besides."""


class Row(NamedTuple):
    """One line of a table."""

    flag: str
    variable: str
    default: str
    text: str

    def __str__(self) -> str:
        """Return it as Markdown."""
        return f"| {self.flag} | {self.variable} | {self.default} | {self.text} |"


def document() -> str:
    """Return the whole text.

    Raises:
        ValueError: a setting is in no group, or in two.

    """
    grouped = [name for names in GROUPS.values() for name in names]
    if sorted(grouped) != sorted(Settings.model_fields) or set(CLIENT) != variables.CLIENT:
        raise ValueError(f"not once in the groups: {set(grouped) ^ set(Settings.model_fields)}")
    return "\n".join([INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    for title, names in GROUPS.items():
        yield f"## {title}\n"
        yield from _table(_row(name, Settings.model_fields[name]) for name in names)
    yield "## Programs that fetch tokens\n"
    yield "`ClientCredentials.from_env()` reads these variables, and `AUTHZ_ISSUER`, `AUTHZ_DISCOVER` and"
    yield "`AUTHZ_DISCOVER_HOSTS`. `authz token` has flags for them, which its `--help` lists.\n"
    yield "| variable | what it does |"
    yield "|---|---|"
    yield from (f"| {_variable(name)} | {text} |" for name, text in CLIENT.items())
    yield ""


def _table(rows: Iterator[Row]) -> Iterator[str]:
    yield "| flag | variable | default | what it does |"
    yield "|---|---|---|---|"
    yield from map(str, rows)
    yield ""


def _row(name: str, field: FieldInfo) -> Row:
    is_secret = SecretStr in get_args(field.annotation)
    text = f"The secret itself. Prefer `--{flag(name)}-file`." if is_secret else field.description or ""
    shown = "" if is_secret else f"`--{flag(name)}`"
    return Row(shown, _variable(name), _default(field.default), " ".join([text.replace("|", "\\|"), *_values(field)]))


def _variable(name: str) -> str:
    return f"`{variables.PREFIX}{name.upper()}`"


def _default(value: Any) -> str:
    if isinstance(value, list):
        value = ",".join(value)
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        value = str(value).lower()
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _values(field: FieldInfo) -> Iterator[str]:
    """Yield which values there are, where only some are good."""
    if get_origin(field.annotation) is Literal:
        yield f"One of {', '.join(f'`{each}`' for each in get_args(field.annotation))}."
    bounds = {name: getattr(part, name) for part in field.metadata for name in ("ge", "le") if hasattr(part, name)}
    if len(bounds) == len(("ge", "le")):
        yield f"From {bounds['ge']:g} to {bounds['le']:g}."
    elif bounds:
        yield f"At least {bounds['ge']:g}."


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
