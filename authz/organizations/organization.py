"""What the owner of an API knows about the organizations that call it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from authz.organizations.quota import Quota

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


# A NamedTuple: no other immutable class is built as fast.
class Organization(NamedTuple):
    """One organization.

    Args:
        tenant: the owner's own id for it, or ``""``.
        groups: the groups that it belongs to.
        is_suspended: whether every call of it is refused.
        labels: anything else.
        name: its name, for people.
        quota: how much it may call; ``None`` for any amount.

    """

    tenant: str = ""
    groups: frozenset[str] = frozenset()
    is_suspended: bool = False
    labels: Mapping[str, str] = _NO_LABELS
    name: str = ""
    quota: Quota | None = None

    def over(self, other: "Organization") -> "Organization":
        """Return both combined: this one overrides ``other`` by field and by label; groups are joined."""
        return Organization(
            self.tenant or other.tenant,
            self.groups | other.groups,
            self.is_suspended or other.is_suspended,
            MappingProxyType({**other.labels, **self.labels}),
            self.name or other.name,
            self.quota or other.quota,
        )


STRANGER = Organization()
"""An organization about which nothing is known."""
