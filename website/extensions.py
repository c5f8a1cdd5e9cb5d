"""What griffe, which reads the code for the site, does not know of our code by itself."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Roles of reStructuredText in docstrings, such as ``:class:`~authz.Verifier```.

    Each becomes a link to what it names where the site describes that, and code elsewhere.
    """

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(lambda role: self._link(obj, role), obj.docstring.value)

    @staticmethod
    def _link(obj: griffe.Object, role: re.Match[str]) -> str:
        name = role[2]
        try:
            path = obj.resolve(name)
        except griffe.NameResolutionError:
            # Inherited, or of another package.
            owner = obj if obj.is_class else obj.parent
            path = name if "." in name or owner is None else f"{owner.path}.{name}"
        shown = name.rpartition(".")[2] if role[1] else name
        return f'<autoref identifier="{path}" optional>`{shown}`</autoref>'


class NamedTuples(griffe.Extension):
    """Named tuples, whose fields are the parameters of their constructor."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Add the constructor."""
        if "NamedTuple" not in [str(base).rpartition(".")[2] for base in cls.bases]:
            return
        fields = [each for each in cls.members.values() if each.is_attribute and "property" not in each.labels]
        parameters = [
            griffe.Parameter(
                each.name,
                annotation=each.annotation,
                kind=griffe.ParameterKind.positional_or_keyword,
                default=each.value,
            )
            for each in fields
        ]
        itself = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
        cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(itself, *parameters)))
