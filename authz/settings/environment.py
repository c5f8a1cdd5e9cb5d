"""Settings from variables: where they are read, what no value may be, and how a wrong one is named."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from authz.errors import ConfigError
from authz.settings import variables


class EnvironmentSettings(BaseModel):
    """Settings, each a field, a flag and a variable.

    Args:
        values: fields, which go before variables of the environment, and of the file that ``env_file`` names.

    Raises:
        ValidationError: a value that cannot be.
        ConfigError: a variable that is none of ours, or a file that cannot be read.

    """

    # Deferred: most of these classes are only inherited from.
    model_config = ConfigDict(extra="forbid", validate_default=True, defer_build=True)

    def __init__(self, **values: Any) -> None:
        super().__init__(**{**self._outside(values), **values})

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
    def _outside(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is set of these fields outside the program, where ``values`` are given inside."""
        found = variables.read(values.get("env_file"))
        return {name: value for name, value in found.items() if name in cls.model_fields}

    def masked(self) -> dict[str, Any]:
        """Return all settings as plain data for people to read, without what could be a secret."""
        return {name: _masked(value) for name, value in self.model_dump(mode="json").items()}


def config_error(error: ValidationError) -> ConfigError:
    """Return the first error, in one line that names flag and variable."""
    first = error.errors(include_url=False, include_input=False)[0]
    if not first["loc"] and isinstance(first["ctx"]["error"], ConfigError):
        # Of variables, which pydantic caught while it built the whole.
        return first["ctx"]["error"]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return ConfigError(f"{name}: no such setting; the nearest is {variables.nearest(name)}")
    return ConfigError(f"{name}: {first['msg']}; set {variables.PREFIX}{name.upper()} or --{flag(name)}")


def flag(name: str) -> str:
    """Return the flag of a setting, without its hyphens."""
    return name.replace("_", "-")


def _masked(value: Any) -> Any:
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
