"""Settings from variables: where they are read, what no value may be, and how a wrong one is named."""

from typing import Any, Self

from pydantic import SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from authz.errors import ConfigError
from authz.settings import variables


class EnvironmentSettings(BaseSettings):
    """Settings, each a field, a flag and a variable."""

    model_config = SettingsConfigDict(extra="forbid")

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - which takes a name that is none for nothing
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - which reads a file that no operator has named
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - there is none
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where values come from, the first one first; for pydantic."""
        return init_settings, _Variables(settings_cls)

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

    def masked(self) -> dict[str, Any]:
        """Return all settings as plain data for people to read, without what could be a secret."""
        return {name: _masked(value) for name, value in self.model_dump(mode="json").items()}


class _Variables(PydanticBaseSettingsSource):
    """The variables of the environment, and of the file that ``env_file`` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # pragma: no cover - all are read at once

    def __call__(self) -> dict[str, Any]:
        found = variables.read(self.current_state.get("env_file"))
        return {name: value for name, value in found.items() if name in self.settings_cls.model_fields}


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
