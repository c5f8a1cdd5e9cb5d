"""The organizations that a policy lists, up to millions of them: kept as text, and read when they call.

An object for each would take five times the memory, and the garbage collector would stop every thread to look at them
all. So each is one line of text, some lines are one bucket, and where an organization is follows from its id. To find
a line takes less than a microsecond; of those that have called lately the objects are kept.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any, TypeVar, overload

from authz.call.memory import Memory
from authz.organizations.organization import STRANGER, Organization
from authz.organizations.quota import Quota

V = TypeVar("V")

# So many organizations share a bucket: fewer would take more memory, more would take longer to look through.
_IN_A_BUCKET = 8
_PAGE_BITS = 8
_IN_A_PAGE = 1 << _PAGE_BITS
_RECENT = 10_000
# So many lines are digested at once, which takes less time, and lets other threads go first.
_AT_ONCE = 256
_SUSPENDED = "!"

_Page = list[bytes]
_encode = json.JSONEncoder().encode


class Listing(Mapping[str, Organization]):
    """What is known of organizations, by id. Immutable; one object serves any number of threads.

    Build one with a :class:`Draft`.

    Args:
        pages: the buckets.
        count: how many organizations are in them.
        quotas: the plans, by name.
        default: the plan of organizations that name none.
        digest: the same for the same organizations in the same order.

    Attributes:
        digest: that of the argument.

    """

    def __init__(
        self, pages: list[_Page], count: int, quotas: Mapping[str, Quota], default: Quota | None, digest: bytes
    ) -> None:
        self._pages, self._count, self.digest = pages, count, digest
        self._quotas: Mapping[str, Quota | None] = {**quotas, "": default}
        self._recent = Memory[str, Organization](_RECENT)
        # Many organizations share few sets of groups: equal sets are one object.
        self._groups = Memory[str, frozenset[str]](_RECENT)

    def __getitem__(self, org_id: str) -> Organization:
        """Return what is known of an organization."""
        found = self._recent.get(org_id)
        if found is not None:
            return found
        line = self._line_of(org_id)
        if line is None:
            raise KeyError(org_id)
        return self._read(line)

    @overload
    def get(self, key: str, /) -> Organization | None: ...
    @overload
    def get(self, key: str, /, default: Organization | V) -> Organization | V: ...
    def get(self, key: str, /, default: object = None) -> object:
        """Return what is known of an organization that calls, the same object for each call; else ``default``."""
        found = self._recent.get(key)
        if found is not None:
            return found
        line = self._line_of(key)
        if line is None:
            return default
        found = self._read(line)
        self._recent.remember(key, found)
        return found

    def __contains__(self, org_id: object) -> bool:
        """Say whether an organization is listed."""
        return isinstance(org_id, str) and self._line_of(org_id) is not None

    def __iter__(self) -> Iterator[str]:
        """Yield the ids, in no order."""
        return (line.partition("\t")[0] for line in self._lines())

    def __len__(self) -> int:
        """Return how many organizations are listed."""
        return self._count

    def suspended(self) -> Iterator[str]:
        """Yield the ids of those that are suspended, in no order."""
        for line in self._lines():
            org_id, _, rest = line.partition("\t")
            if rest.startswith(_SUSPENDED):
                yield org_id

    def let_go(self) -> Iterator[None]:
        """Free this listing, which is in force no more, a part at each step.

        To do so at once would stop every thread for milliseconds. Who still uses it may go on; then the last of them
        frees what is left.
        """
        pages, recent = [*self._pages], self._recent
        del self
        yield from recent.let_go()
        while pages:
            pages.pop()
            yield

    def _lines(self) -> Iterator[str]:
        for page in self._pages:
            for bucket in page:
                yield from bucket.decode("ascii").split("\n")[1:]

    def _line_of(self, org_id: str) -> str | None:
        page, place = _place(self._pages, org_id)
        bucket = page[place]
        begin = bucket.find(f"\n{org_id}\t".encode(errors="replace")) + 1
        if not begin:
            return None
        end = bucket.find(b"\n", begin)
        line = bucket[begin : end if end >= 0 else None].decode("ascii")
        # An id of a caller may be any text.
        return line if line.startswith(f"{org_id}\t") and "\t" not in org_id else None

    def _read(self, line: str) -> Organization:
        _org_id, status, groups, quota, tenant, name, labels = line.split("\t")
        return Organization(
            tenant,
            self._groups_of(groups),
            status == _SUSPENDED,
            MappingProxyType(json.loads(labels)) if labels else STRANGER.labels,
            json.loads(name) if name else "",
            self._quotas[quota],
        )

    def _groups_of(self, text: str) -> frozenset[str]:
        groups = self._groups.get(text)
        if groups is None:
            groups = frozenset(text.split(",") if text else ())
            self._groups.remember(text, groups)
        return groups


class Draft:
    """Puts a listing together.

    Args:
        quotas: the plans, by name.
        default: the plan of organizations that name none.
        expected: about how many organizations there will be.

    Attributes:
        groups: all that organizations are in.
        quotas: the names of all plans that organizations have.
        count: how many there are by now.

    """

    def __init__(self, quotas: Mapping[str, Quota], default: Quota | None, expected: int) -> None:
        self._quotas, self._default = quotas, default
        count = 1 << (expected // (_IN_A_BUCKET * _IN_A_PAGE)).bit_length()
        self._pages: list[_Page] = [[b""] * _IN_A_PAGE for _ in range(count)]
        self._digest, self._undigested = sha256(), list[bytes]()
        self._texts = Memory[tuple[str | None, tuple[str, ...], str], str](_RECENT)
        self.groups: set[str] = set()
        self.quotas: set[str] = set()
        self.count = 0

    def add(self, org_id: str, given: Mapping[str, Any]) -> bool:
        """Add one organization; return whether there was none of that id.

        Args:
            org_id: its id, which is an identifier.
            given: what is said of it in a document, and has been checked: its plan is one of the plans.

        """
        name, labels = given.get("name"), given.get("labels")
        # Neither identifiers nor words, nor texts in JSON, have tabs or line breaks.
        own = f"{given.get('tenant', '')}\t{_encode(name) if name else ''}\t{_encode(labels) if labels else ''}"
        line = f"\n{org_id}\t{self._common(given)}\t{own}".encode("ascii")
        page, place = _place(self._pages, org_id)
        if line[: len(org_id) + 2] in page[place]:
            return False
        page[place] += line
        self.count += 1
        self._undigested.append(line)
        if len(self._undigested) == _AT_ONCE:
            self._digest_more()
        return True

    def _common(self, given: Mapping[str, Any]) -> str:
        """Return what many organizations have in common."""
        status, groups, quota = given.get("status"), tuple(given.get("groups", ())), given.get("quota", "")
        common = self._texts.get((status, groups, quota))
        if common is None:
            common = f"{_SUSPENDED if status == 'suspended' else ''}\t{','.join(groups)}\t{quota}"
            self._texts.remember((status, groups, quota), common)
            self.groups.update(groups)
            self.quotas.add(quota)
        return common

    def _digest_more(self) -> None:
        self._digest.update(b"".join(self._undigested))
        self._undigested.clear()

    def listing(self) -> Listing:
        """Return what has been put together; nothing may be added any more."""
        self._digest_more()
        return Listing(self._pages, self.count, self._quotas, self._default, self._digest.digest())


def _place(pages: list[_Page], org_id: str) -> tuple[_Page, int]:
    place = hash(org_id)
    return pages[(place >> _PAGE_BITS) & (len(pages) - 1)], place & (_IN_A_PAGE - 1)
