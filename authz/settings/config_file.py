"""A file of settings, which an operator keeps under version control: YAML, TOML or JSON, by its suffix.

Its keys are the names of settings. What is misspelt, empty or of another type is an error and never a default, as of
variables; and no secret stands in it, because such a file is copied and shown.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authz.errors import ConfigError
from authz.runtime.text import document
from authz.runtime.text.document import Document, Fault
from authz.runtime.text.toml import read_toml
from authz.settings.variables import PREFIX, SECRETS, SETTINGS

MAX_BYTES = 1 << 20

KEYS = SETTINGS - SECRETS - {"config", "env_file"}
"""The settings that may stand in such a file."""

LISTED = ("issuers", "shared_organizations")
"""The keys of a file of issuers, whose content may also stand here."""


@dataclass(frozen=True)
class ConfigFile:
    """A file of settings.

    Args:
        document: what it holds.
        values: the settings in it, by name; ``issuers`` is the path of this file if they are listed in it.

    """

    document: Document
    values: Mapping[str, Any]

    @property
    def issuers(self) -> Document | None:
        """What the file lists of issuers itself; ``None`` if it does not, but may name the file that does."""
        data = self.document.data
        if not _lists_issuers(data):
            return None
        return self.document._replace(data={key: data[key] for key in LISTED if key in data})

    def origin(self, name: str) -> str:
        """Return the place of a setting: the file and, if it can be told, the line."""
        line = self.document.line(name)
        return self.document.source if line is None else f"{self.document.source}:{line}"

    def error(self, name: str, message: str) -> ConfigError:
        """Return the error for a setting of this file."""
        return ConfigError(f"{self.origin(name)}: {name}: {message}")


def read_config(path: str) -> ConfigFile:
    """Read a file of settings.

    Args:
        path: TOML where it ends in ``.toml``, JSON where in ``.json``, else YAML.

    Raises:
        ConfigError: it cannot be read; or a key is no setting, or a secret; or a value is missing.

    """
    found = read_document(path)
    try:
        return ConfigFile(found, _values(found))
    except Fault as fault:
        raise found.error(fault) from None


def read_document(path: str) -> Document:
    """Read a file of settings or of issuers, without a look at its keys.

    Raises:
        ConfigError: it cannot be read, or is not what its suffix says.

    """
    return read_toml(path, max_bytes=MAX_BYTES) if path.endswith(".toml") else document.read(path, max_bytes=MAX_BYTES)


def _values(found: Document) -> dict[str, Any]:
    data = {} if found.data is None else found.data
    if not isinstance(data, dict):
        raise Fault("must be a mapping of settings, such as issuer: https://acme.authkit.app")
    for key, value in data.items():
        _check(key, value, is_listed=_lists_issuers(data))
    values = {key: value for key, value in data.items() if key in KEYS}
    return {**values, "issuers": found.source} if _lists_issuers(data) else values


def _lists_issuers(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("issuers"), list)


def _check(key: str, value: object, *, is_listed: bool) -> None:
    if key in SECRETS:
        raise Fault(f"{key}: no secret stands here; name a file: {key}_file", key)
    if key in ("config", "env_file"):
        raise Fault(f"{key}: a file of settings cannot name another", key)
    if key == "shared_organizations" and is_listed:
        return
    if key not in KEYS:
        raise Fault(f"{key!a}: no such setting; the nearest is {_nearest(key)}", key)
    if value is None or value == "":
        raise Fault(f"{key}: must not be empty: remove it, or give it a value", key)


def _nearest(key: str) -> str:
    name = key.lower().removeprefix(PREFIX.lower()).replace("-", "_")
    [nearest] = difflib.get_close_matches(name, sorted(KEYS), n=1, cutoff=0)
    return nearest
