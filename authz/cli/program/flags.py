"""Settings as options of commands: in the groups of the settings, and without secrets."""

from collections.abc import Mapping

from cyclopts import Group, Parameter

from authz.settings.environment import EnvironmentSettings
from authz.settings.groups import GROUPS
from authz.settings.variables import SECRETS

# A secret would show in every list of processes.
_NO_FLAG = Parameter(parse=False)
_SHOWN: Mapping[str, Parameter] = {
    name: Parameter(group=Group(title, sort_key=number))
    for number, (title, names) in enumerate(GROUPS.items())
    for name in names
}


def flags_of(settings: type[EnvironmentSettings]) -> Parameter:
    """Return what makes an option of each of the settings, for the annotation of a command's argument.

    Args:
        settings: the class; its fields are marked for the command line, which knows no other place to look.

    """
    for name, field in settings.model_fields.items():
        field.metadata.append(_NO_FLAG if name in SECRETS else _SHOWN[name])
    # Cyclopts asks pydantic for it twice, which makes a whole new one each time, unless there is one.
    settings.model_rebuild()
    return Parameter(name="*")
