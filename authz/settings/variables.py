"""The variables ``AUTHZ_*``, of the environment and of a file: which there are, and how they are read.

What is misspelt, empty or in quotes is an error and never a default, which may open what a setting was to close.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from authz.errors import ConfigError
from authz.runtime.configuration import extra
from authz.settings.groups import GROUPS

PREFIX = "AUTHZ_"

AuthMethod = Literal["client_secret_post", "client_secret_basic"]
"""How a client shows its secret to an issuer (RFC 6749 section 2.3.1)."""

SETTINGS = frozenset(name for names in GROUPS.values() for name in names)
"""The fields of :class:`authz.settings.settings.Settings`, for those who read variables without its extra."""

SECRETS = frozenset({"admin_secret", "introspection_client_secret", "workos_api_key", "workos_webhook_secret"})
"""Those that are secrets themselves: they have no flag, and no place in a file of settings that people show around."""

CLIENT = frozenset(
    {"client_id", "client_secret", "client_secret_file", "scope", "token_audience", "token_resource", "token_url"}
)
"""What :class:`authz.ClientCredentials` reads besides."""

TESTING = f"{PREFIX}TESTING"
"""No setting: it permits :mod:`authz.testing` where no test is running. What serves others does not start with it."""

# As the settings of a server take them.
_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}

# What Kubernetes sets for a Service called authz or authz-something, in every pod of its namespace that does not say
# enableServiceLinks: false. Values count as well as names, so that no name passes that only looks like one of these.
_SERVICE_LINK = re.compile(
    r"""AUTHZ (_[A-Z0-9_]+)? (
        _SERVICE_HOST = [0-9A-Fa-f.:]+
        | _SERVICE_PORT (_[A-Z0-9_]+)? = \d+
        | _PORT (_\d+_(TCP|UDP|SCTP))? = (tcp|udp|sctp)://\S+:\d+
        | _PORT_\d+_(TCP|UDP|SCTP) (_PROTO=(tcp|udp|sctp) | _PORT=\d+ | _ADDR=[0-9A-Fa-f.:]+)
    )""",
    re.VERBOSE,
)


def read(env_file: str | Path | None = None) -> dict[str, str]:
    """Return the value of every variable that there is, by the name of its setting.

    Args:
        env_file: a file with lines ``AUTHZ_NAME=VALUE``, for what the environment does not say; by default the one that
            ``AUTHZ_ENV_FILE`` names, if any.

    Raises:
        ConfigError: a name is no setting's, or given twice; or the file cannot be read.

    """
    found = of_environment()
    file = env_file if env_file is not None else found.get("env_file")
    return found if file is None else {**of_file(file), **found}


def of_environment() -> dict[str, str]:
    """Return the value of every variable of the environment, by the name of its setting; see :func:`read`."""
    return _settings(os.environ.items())


def of_file(env_file: str | Path) -> dict[str, str]:
    """Return the value of every variable in a file, by the name of its setting; see :func:`read`."""
    return _settings(_lines(env_file))


def values(names: Iterable[str], env_file: str | Path | None = None) -> dict[str, str]:
    """Return the values of those variables among ``names`` that there are.

    Args:
        names: of settings.
        env_file: as for :func:`read`.

    Raises:
        ConfigError: as for :func:`read`; or one of them is empty, or in quotes.

    """
    found = read(env_file)
    return {name: tidied(name, found[name]) for name in names if name in found}


def is_ours(name: str) -> bool:
    """Say whether ``name`` is that of one of our variables, or was meant to be."""
    return name.upper().startswith(PREFIX)


def tidy(value: str, *, may_be_empty: bool = False) -> str:
    """Return ``value`` without the blanks and line ends around it, which come from files and belong to nothing.

    Args:
        value: as it was given.
        may_be_empty: whether nothing at all is a value.

    Raises:
        ValueError: it is empty, or has the quotes around it that ``docker --env-file`` and others leave there.

    """
    text = value.strip()
    if not text and not may_be_empty:
        raise ValueError("must not be empty: remove it, or give it a value")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise ValueError("must not be in quotes: they are part of the value where no shell removes them")
    return text


def tidied(name: str, value: str) -> str:
    """Return what :func:`tidy` does of the variable of the setting ``name``.

    Raises:
        ConfigError: it is empty, or in quotes.

    """
    try:
        return tidy(value)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}; set {PREFIX}{name.upper()}") from None


def boolean(name: str, value: str) -> bool:
    """Return what a variable says that is yes or no.

    Args:
        name: of the setting.
        value: of the variable.

    Raises:
        ConfigError: it says neither.

    """
    if value.lower() not in _BOOLEANS:
        raise ConfigError(f"{name}: must be true or false; set {PREFIX}{name.upper()}")
    return _BOOLEANS[value.lower()]


def nearest(name: str) -> str:
    """Return the setting whose name is most like ``name``."""
    # Only for a mistake.
    import difflib  # noqa: PLC0415

    [found] = difflib.get_close_matches(name.lower(), sorted(SETTINGS | CLIENT), n=1, cutoff=0)
    return found


def _settings(variables: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in variables:
        if not is_ours(name) or _SERVICE_LINK.fullmatch(f"{name}={value}"):
            continue
        if name == TESTING:
            raise ConfigError(
                f"{name}: permits test credentials, so neither servers nor commands start with it; unset it"
            )
        setting = name[len(PREFIX) :].lower()
        if setting not in SETTINGS | CLIENT:
            shown = ascii(name)[1:-1]
            raise ConfigError(f"{shown}: no such setting; the nearest is {PREFIX}{nearest(setting).upper()}")
        if setting in found:
            raise ConfigError(f"{setting}: {PREFIX}{setting.upper()} is given more than once")
        found[setting] = value
    return found


def _lines(file: str | Path) -> Iterator[tuple[str, str]]:
    with extra("settings", "env_file: this needs the extra 'settings'", package="dotenv"):
        from dotenv.parser import parse_stream  # noqa: PLC0415 - the extra's
    shown = ascii(str(file))
    try:
        with Path(file).open(encoding="utf-8") as lines:
            bindings = list(parse_stream(lines))
    except (OSError, ValueError):
        raise ConfigError(f"env_file: {shown} cannot be read as UTF-8 text") from None
    for line in bindings:
        if line.error or (line.key is not None and line.value is None):
            # Whose it was to be cannot be known.
            text = line.original.string
            number = line.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            raise ConfigError(f"env_file: {shown}, line {number}: not NAME=VALUE")
        if line.key is not None and line.key.upper() == f"{PREFIX}ENV_FILE":
            raise ConfigError(f"env_file: {shown} cannot name another file")
        if line.key is not None and line.value is not None:
            yield line.key, line.value
