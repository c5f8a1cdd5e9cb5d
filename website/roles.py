"""Roles of reStructuredText in docstrings, such as ``:class:`~authz.Verifier```, as links of Markdown."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Make each role a link to what it names where the site describes that, and code elsewhere."""

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
            path = name
        shown = name.rpartition(".")[2] if role[1] else name
        return f'<autoref identifier="{path}" optional>`{shown}`</autoref>'
