"""Who may call what, as ``.proto`` files declare it with the options of ``authz/v1/policy.proto``.

Read once, into plain values. :mod:`authz.policy` makes a policy of them, alone or together with a policy file.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions, ServiceOptions

from authz.call.requirements import ACTIVE_SECONDS
from authz.errors import ConfigError
from authz.policy.protos.descriptors import Descriptors, methods_of, registered_services
from authz.v1 import policy_pb2

# RFC 6749 section 3.3; of several, with one space between them, the token must hold all.
_SCOPES = re.compile(r"[!#-\[\]-~]+( [!#-\[\]-~]+)*")
_NAME = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a method asks of its callers: one item of each list that is not empty.

    Args:
        scopes: sets of scopes; the caller must hold every scope of one set.
        groups: of organizations.
        organizations: by their ids.
        clients: by their client ids.
        public: whether every caller may call, even without a token.
        max_age: how many seconds old the issuer's word that the token is active may be; ``None``: it is not asked.
        if_unavailable: what happens while the issuer cannot be asked; see :class:`authz.Assurance`.

    """

    scopes: tuple[frozenset[str], ...] = ()
    groups: frozenset[str] = frozenset()
    organizations: frozenset[str] = frozenset()
    clients: frozenset[str] = frozenset()
    public: bool = False
    max_age: float | None = None
    if_unavailable: Literal["deny", "local"] = "deny"


def access_of_services(names: Iterable[str]) -> Mapping[str, Access | None]:
    """Return what each method of some services asks for, by its full name; ``None`` if it declares nothing.

    Args:
        names: full names of services, such as ``authz.demo.v1.LedgerService``, whose generated modules are imported.

    Raises:
        ConfigError: there is no such service, or an option of it is invalid.

    """
    return _access_of(registered_services(names), "services")


def access_of_file(
    file: Descriptors | str | os.PathLike[str], setting: str = "descriptors"
) -> Mapping[str, Access | None]:
    """Return what each method of a descriptor set asks for, by its full name; ``None`` if it declares nothing.

    Args:
        file: the descriptor set; ``buf build -o api.binpb`` writes one.
        setting: what to call it in an error.

    Raises:
        ConfigError: it cannot be read, or an option in it is invalid.

    """
    descriptors = Descriptors.of(file, setting)
    return _access_of(descriptors.services, descriptors.source)


def _access_of(services: Iterable[ServiceDescriptor], described: str) -> Mapping[str, Access | None]:
    found = {}
    for name, method in methods_of(services):
        try:
            found[name] = _declared(method.GetOptions(), method.containing_service.GetOptions())
        except ConfigError as error:
            raise ConfigError(f"{described}: {name}: {error}") from None
    return MappingProxyType(found)


def _declared(own: MethodOptions, service: ServiceOptions) -> Access | None:
    # An option that asks for nothing admits every good token; an option that was forgotten must not.
    if not own.HasExtension(policy_pb2.access) and not service.HasExtension(policy_pb2.default_access):
        return None
    return _access(_combined(own.Extensions[policy_pb2.access], service.Extensions[policy_pb2.default_access]))


def _combined(own: policy_pb2.Access, default: policy_pb2.Access) -> policy_pb2.Access:
    """Return ``own``, with fields of ``default`` for those that are not set."""
    for access in (default, own):
        if access.public and _requirements(access):
            raise ConfigError(f"public: true and {_requirements(access)[0]} exclude one another")
    if own.public:
        return own
    combined = policy_pb2.Access()
    for access in (default, own):
        for field, value in access.ListFields():
            combined.ClearField(field.name)  # type: ignore[arg-type]
            combined.MergeFrom(policy_pb2.Access(**{field.name: value}))
    if _requirements(own):
        # A method that asks for something is not public, whatever its service says.
        combined.public = False
    return combined


def _requirements(access: policy_pb2.Access) -> list[str]:
    return [field.name for field, _ in access.ListFields() if field.name != "public"]


def _access(declared: policy_pb2.Access) -> Access:
    for scopes in declared.scopes:
        if not _SCOPES.fullmatch(scopes):
            raise ConfigError(f"scopes: {scopes!a} is not a scope, or several with one space between them")
    return Access(
        scopes=tuple(frozenset(scopes.split(" ")) for scopes in declared.scopes),
        groups=_names(declared, "groups"),
        organizations=_names(declared, "organizations"),
        clients=_names(declared, "clients"),
        public=declared.public,
        max_age=_max_age(declared.introspect) if declared.HasField("introspect") else None,
        if_unavailable=_if_unavailable(declared.introspect),
    )


def _names(declared: policy_pb2.Access, field: str) -> frozenset[str]:
    names = frozenset(getattr(declared, field))
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{field}: {name!a} is not a name: use printable ASCII without spaces")
    return names


def _max_age(introspect: policy_pb2.Introspect) -> float:
    seconds = introspect.max_age.seconds + introspect.max_age.nanos / 1e9
    if not 0 <= seconds <= ACTIVE_SECONDS:
        raise ConfigError(f"introspect: max_age of {seconds:g} seconds is not from 0 to {ACTIVE_SECONDS:g}")
    return seconds


def _if_unavailable(introspect: policy_pb2.Introspect) -> Literal["deny", "local"]:
    known = {
        policy_pb2.Introspect.IF_UNAVAILABLE_UNSPECIFIED,
        policy_pb2.Introspect.IF_UNAVAILABLE_DENY,
        policy_pb2.Introspect.IF_UNAVAILABLE_LOCAL,
    }
    if introspect.if_unavailable not in known:
        raise ConfigError(f"introspect: if_unavailable {int(introspect.if_unavailable)} is not known here")
    return "local" if introspect.if_unavailable == policy_pb2.Introspect.IF_UNAVAILABLE_LOCAL else "deny"
