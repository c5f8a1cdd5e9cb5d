"""Services as their ``.proto`` files declare them: those of this process, and those of a descriptor set."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_database import DescriptorDatabase
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

from authz.errors import ConfigError

# Registers our options, so that they are recognized in a descriptor set.
from authz.v1 import policy_pb2 as _options  # noqa: F401

_MAX_BYTES = 32 << 20


def registered_services(names: Iterable[str]) -> list[ServiceDescriptor]:
    """Return services of this process by their full names, such as ``authz.demo.v1.LedgerService``.

    Raises:
        ConfigError: there is no service of that name.

    """
    pool = descriptor_pool.Default()
    services = []
    for name in (names,) if isinstance(names, str) else names:
        try:
            services.append(pool.FindServiceByName(name))
        except KeyError:
            raise ConfigError(
                f"services: {name!a} is not registered; import the module that protoc made of its file (…_pb2) first"
            ) from None
    return services


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The services of a ``google.protobuf.FileDescriptorSet``, read and linked once for all that is made of them.

    They are in a pool of their own: what this process has registered under the same names is something else.

    Attributes:
        services: every service.
        source: how errors name the file.

    """

    services: Sequence[ServiceDescriptor]
    source: str

    @classmethod
    def of(cls, file: "Descriptors | str | os.PathLike[str]", setting: str = "descriptors") -> "Descriptors":
        """Return ``file`` if it has been read already, or read it.

        Args:
            file: one that ``buf build -o``, or ``protoc --include_imports --descriptor_set_out``, has written.
            setting: what to call it in an error.

        Raises:
            ConfigError: it cannot be read, is no descriptor set, or is not complete.

        """
        return file if isinstance(file, Descriptors) else cls._read(Path(file), setting)

    @classmethod
    def _read(cls, path: Path, setting: str) -> Self:
        source = f"{setting}: {str(path)!a}"
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"{source} cannot be read ({error.strerror})") from None
        if len(data) > _MAX_BYTES:
            raise ConfigError(f"{source} is larger than {_MAX_BYTES >> 20} MiB")
        try:
            files = FileDescriptorSet.FromString(data).file
        except DecodeError:
            raise ConfigError(f"{source} is not a descriptor set; make one with: buf build -o api.binpb") from None
        services = [service for each in linked(files, source) for service in each.services_by_name.values()]
        if not services:
            raise ConfigError(f"{source} declares no service; make it with: buf build -o api.binpb")
        return cls(services, source)


def methods_of(services: Iterable[ServiceDescriptor]) -> Iterator[tuple[str, MethodDescriptor]]:
    """Yield every method with its full name, such as ``/authz.demo.v1.LedgerService/PostEntry``."""
    for service in services:
        for method in service.methods:
            yield f"/{service.full_name}/{method.name}", method


def is_repeated(field: FieldDescriptor) -> bool:
    """Say whether a field is a list or a map."""
    # protobuf 6.30 has no `is_repeated`, and 7 has no `label`.
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == FieldDescriptor.LABEL_REPEATED)  # type: ignore[attr-defined]


def linked(files: Iterable[Any], source: str) -> list[FileDescriptor]:
    """Return files in a pool of their own.

    Args:
        files: each a ``FileDescriptorProto``, in any order.
        source: how errors name where they come from.

    Raises:
        ConfigError: they do not fit together, or one is missing.

    """
    database = DescriptorDatabase()
    names = []
    try:
        for file in files:
            database.Add(file)
            names.append(file.name)
        # From a database a pool loads files in the order of their dependencies.
        pool = descriptor_pool.DescriptorPool(database)
        return [pool.FindFileByName(name) for name in names]
    except Exception as error:
        # Implementations of protobuf raise different errors: KeyError, TypeError, or a class of their own.
        missing = sorted({name for file in files for name in file.dependency} - {file.name for file in files})
        if missing:
            remedy = f"lacks {missing[0]}; make it with: buf build -o api.binpb (protoc: --include_imports)"
            raise ConfigError(f"{source} {remedy}") from error
        raise ConfigError(f"{source} has files that do not fit together") from error
