"""Settings from outside the program: where they are read, what no value may be, and how a wrong one is named."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from authz.errors import ConfigError
from authz.settings import variables
from authz.settings.groups import GROUPS
from authz.settings.outside import NOTHING, Outside, read_outside
from authz.settings.types import check_type


class EnvironmentSettings(BaseModel):
    """Settings, each a field, a flag and a variable.

    Args:
        values: fields, which go before variables of the environment; these before variables of the file that
            ``env_file`` names, and these before the file that ``config`` names.

    Raises:
        ValidationError: a value that cannot be.
        ConfigError: a variable that is none of ours, or a file that cannot be read, or with a value that cannot be.

    """

    # Deferred: most of these classes are only inherited from.
    model_config = ConfigDict(extra="forbid", validate_default=True, defer_build=True)

    # Where the values are from that no caller has given.
    _outside: Outside = PrivateAttr(default=NOTHING)
    _given: frozenset[str] = PrivateAttr(default=frozenset())

    def __init__(self, **values: Any) -> None:
        outside, fields = self._read(values), type(self).model_fields
        found = {name: value for name, value in outside.values.items() if name in fields and name not in values}
        for name, value in found.items():
            file = outside.in_config(name)
            wrong = "" if file is None else check_type(value, fields[name].annotation)
            if file is not None and wrong:
                raise file.error(name, wrong)
        try:
            super().__init__(**found, **values)
        except ValidationError as error:
            name, message = _first(error)
            file = outside.in_config(name) if name in found else None
            if file is not None:
                raise file.error(name, message) from None
            raise
        self._outside, self._given = outside, frozenset(values)

    @classmethod
    def load(cls, given: Self | None = None, /, **values: Any) -> Self:
        """Return the settings in force.

        Args:
            given: settings that have been read already; they are returned as they are.
            values: fields, which go before variables.

        Raises:
            ConfigError: a value that cannot be; the message names flag and variable.

        """
        if given is not None:
            return given
        try:
            return cls(**values)
        except ValidationError as error:
            raise config_error(error) from None

    @field_validator("*", mode="before")
    @classmethod
    def _tidy(cls, value: Any, info: ValidationInfo) -> Any:
        default = cls.model_fields[info.field_name or ""].default
        try:
            if isinstance(value, SecretStr):
                return variables.tidy(value.get_secret_value())
            if isinstance(value, str):
                return variables.tidy(value, may_be_empty=default in ("", []))
            if isinstance(value, list):
                return [variables.tidy(each) if isinstance(each, str) else each for each in value]
        except ValueError as error:
            raise PydanticCustomError("untidy", "{why}", {"why": str(error)}) from None
        return value

    @classmethod
    def _read(cls, values: Mapping[str, Any]) -> Outside:
        """Return what is set outside the program, where ``values`` are given inside."""
        return read_outside(values.get("env_file"), values.get("config"))

    @property
    def given(self) -> dict[str, Any]:
        """What the caller has given, flags for one, as plain data and without secrets, which are never flags.

        With it, and the same variables and files, the settings are the same again.
        """
        return self.model_dump(mode="json", include=set(self._given - variables.SECRETS))

    def origin(self, name: str) -> str:
        """Return where the value of a setting is from: a flag, a variable, a place in a file; empty of a default."""
        if name not in self.model_fields_set:
            return ""
        return f"--{flag(name)}" if name in self._given else self._outside.origin(name)

    @contextlib.contextmanager
    def naming_origins(self) -> Iterator[None]:
        """Name the file of settings where one of its values turns out to be wrong in the block.

        Raises:
            ConfigError: the block raised it.

        """
        try:
            yield
        except ConfigError as error:
            name = str(error).partition(":")[0]
            if name not in self._given and self._outside.in_config(name) is not None:
                raise ConfigError(f"{self.origin(name)}: {error}") from None
            raise

    def masked(self) -> dict[str, Any]:
        """Return all settings as plain data, in the order in which people read them, without what could be a secret."""
        values = self.model_dump(mode="json")
        return {name: masked(values[name]) for names in GROUPS.values() for name in names if name in values}


def config_error(error: ValidationError) -> ConfigError:
    """Return the first error, in one line that names flag and variable."""
    first = error.errors(include_url=False, include_input=False)[0]
    if not first["loc"] and isinstance(first["ctx"]["error"], ConfigError):
        # Of variables, which pydantic caught while it built the whole.
        return first["ctx"]["error"]
    name, message = _first(error)
    if first["type"] == "extra_forbidden":
        return ConfigError(f"{name}: no such setting; the nearest is {variables.nearest(name)}")
    return ConfigError(f"{name}: {message}; set {variables.PREFIX}{name.upper()} or --{flag(name)}")


def _first(error: ValidationError) -> tuple[str, str]:
    """Return the setting and the words of the first error."""
    first = error.errors(include_url=False, include_input=False)[0]
    return str(first["loc"][0]) if first["loc"] else "", first["msg"]


def flag(name: str) -> str:
    """Return the flag of a setting, without its hyphens."""
    return name.replace("_", "-")


def masked(value: Any) -> Any:
    """Return the value of a setting for people to read, without what could be a secret."""
    # pydantic masks values that are secrets as a whole.
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        # A key set of one's own making may have private parts.
        return "{…}"
    if may_hold_secret(value):
        scheme, _, rest = value.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}?…"
    return value


def may_hold_secret(value: str) -> bool:
    """Say whether ``value`` is a URL with more than an address: a user, a password or a query."""
    return "://" in value and ("?" in value or "@" in value)
