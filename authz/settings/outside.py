"""What is set outside the program: by variables, by a file of them, and by a file of settings, in this order."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from authz.settings import variables
from authz.settings.config_file import ConfigFile, read_config
from authz.settings.variables import PREFIX


class Outside(NamedTuple):
    """What is set outside the program.

    Args:
        environment: settings that are variables of the environment.
        lines: settings that are lines of a file of variables.
        env_file: the path of that file.
        config: the file of settings.

    """

    environment: Mapping[str, str] = {}
    lines: Mapping[str, str] = {}
    env_file: str = ""
    config: ConfigFile | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The value of each setting that is set outside, by its name."""
        return {**(self.config.values if self.config is not None else {}), **self.lines, **self.environment}

    def in_config(self, name: str) -> ConfigFile | None:
        """Return the file of settings if that is where the value of a setting is from."""
        is_there = self.config is not None and name in self.config.values
        return self.config if is_there and name not in self.lines and name not in self.environment else None

    def origin(self, name: str) -> str:
        """Return where the value of a setting is from: a variable, or a place in a file."""
        variable = f"{PREFIX}{name.upper()}"
        if name in self.environment:
            return variable
        if name in self.lines:
            return f"{variable} in {self.env_file}"
        return self.config.origin(name) if self.config is not None else ""


NOTHING = Outside()


def read_outside(env_file: str | None = None, config: str | None = None) -> Outside:
    """Read what is set outside the program.

    Args:
        env_file: a file of variables, by default the one that ``AUTHZ_ENV_FILE`` names, if any.
        config: a file of settings, by default the one that ``AUTHZ_CONFIG`` names, if any.

    Raises:
        ConfigError: a name is no setting's, or a file cannot be read.

    """
    environment = variables.of_environment()
    env_file = environment.get("env_file") if env_file is None else env_file
    lines = {} if env_file is None else variables.of_file(env_file)
    path = environment.get("config", lines.get("config")) if config is None else config
    file = None if path is None else read_config(variables.tidied("config", str(path)))
    return Outside(environment, lines, str(env_file or ""), file)
