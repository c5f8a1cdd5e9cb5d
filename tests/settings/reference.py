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

A setting is a flag (`--jwks-url`), a variable (`AUTHZ_JWKS_URL`), a line `AUTHZ_JWKS_URL=…` in the file that
`--env-file` or `AUTHZ_ENV_FILE` names, or a key `jwks_url` in the [file of settings](#a-file-of-settings). The earlier
of these overrides the later.

- Only the issuer and the audience are required, or `issuers` instead of both.
- Where a setting takes several values, repeat the flag, or write commas between the values of the variable.
- A flag without a value, such as `--discover`, turns a setting on, and `--no-discover` turns it off; its variable takes
  `true` or `false`.
- A secret has no flag, because flags show in the list of processes. Give it as a variable or in a file.
- An unknown variable `AUTHZ_…`, an empty value and a value in quotes are [errors](envoy.md#settings).

`authz serve --check-config` checks all settings and prints those in force, where each is from, without secrets.

## A file of settings

`--config authz.yaml` or `AUTHZ_CONFIG` names a file whose keys are the names of settings. It is TOML if its name ends
in `.toml`, JSON if in `.json`, else YAML. [An example](../examples/authz.yaml):

```yaml
# yaml-language-server: $schema=https://grpc-org-authz.dev/latest/schemas/config.schema.json
issuer: https://acme.authkit.app
audience: client_01JYENV0000000000000000000
listen: [127.0.0.1:9191, "unix:/run/authz/authz.sock"]
policy: /etc/authz/policy.yaml
introspect_max_age: 10
introspection_client_id: client_01JYAPI0000000000000000000
introspection_client_secret_file: /run/secrets/introspection
```

- Every setting may stand there but `config`, `env_file` and the secrets themselves; name a file that holds the secret.
- Values have types: `workers: "2"` and `discover: yes` are errors. Several texts are a list.
- An unknown key, an empty value, a key given twice, and anchors, aliases and tags of YAML are errors. The message names
  the file, the line if it can be told, the key and the nearest setting.
- `issuers` is the path of [the file that lists several](interceptors.md#in-settings), or that list itself, beside which
  `shared_organizations` may stand.
- A relative path begins in the folder where the command runs, as that of a flag or a variable does, and not where the
  file lies. Give absolute paths to a service.
- All processes of a server read the file when they start. After a change, send SIGHUP if there are several `workers`,
  else restart.
- `authz verify`, `authz policy explain`, the commands about all replicas, `authz envoy-config`, `authz healthcheck` and
  `from_env()` read it, too. `authz token` and `ClientCredentials.from_env()` do not: it is a server's.

[The JSON Schema](../authz/cli/schemas/config.schema.json) lets editors complete and check it.
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
    yield "`AUTHZ_DISCOVER_HOSTS`. `authz token` reads them too, and has flags for them, which its `--help` lists.\n"
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
