"""What applications are called, for people: told beside client ids, and never a ground for a verdict."""

from collections.abc import Mapping

from authz.call.principal import Principal

MAX_NAMES = 100_000
"""How many names are kept; further applications have none."""


class ClientNames:
    """The names of applications, by client id. One thread at a time may change them; any number may ask.

    Args:
        issuer: the one whose applications these are, if those of others may have the same ids.

    """

    def __init__(self, issuer: str = "") -> None:
        self._issuer = issuer
        self._names: dict[str, str] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._names)

    def of(self, principal: Principal) -> str:
        """Return what the application of a caller is called; empty if that is not known."""
        name = self._names.get(principal.client_id, "")
        return name if not self._issuer or principal.issuer == self._issuer else ""

    def learn(self, names: Mapping[str, str]) -> None:
        """Take in what applications are called by now; an empty name is forgotten."""
        for client_id, name in names.items():
            if not name:
                self._names.pop(client_id, None)
            elif client_id in self._names or len(self._names) < MAX_NAMES:
                self._names[client_id] = name
