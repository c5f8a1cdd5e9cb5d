"""What each organization may do in the demonstration: what the ledger's ``.proto`` asks for, and a file beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from authz.demo.v1 import ledger_pb2
from authz.v1 import policy_pb2

_POLICY = {
    "name": "demo",
    # Plain HTTP has no .proto to ask for a scope.
    "allow_rules": [{"name": "bookkeepers", "source": {"scopes": ["ledger:write"]}}],
}


def ledger_descriptors() -> bytes:
    """Return the ledger's descriptor set, as buf writes it, but without ``introspect``.

    Whoever can be let in while the issuer is down could not if it had to be asked.
    """
    files = FileDescriptorSet()
    _add(ledger_pb2.DESCRIPTOR, files)
    [service] = files.file[-1].service
    for method in service.method:
        method.options.Extensions[policy_pb2.access].ClearField("introspect")
    return files.SerializeToString()


def write_policy(path: Path, more: Mapping[str, Any]) -> None:
    """Put a policy file in the place of the one before, in one step.

    Args:
        path: where it is.
        more: what it says besides who may call, such as ``organizations``.

    """
    new = path.with_name(f"new-{path.name}")
    new.write_text(json.dumps({**_POLICY, **more}, indent=2), encoding="utf-8")
    new.replace(path)


def _add(file: FileDescriptor, files: FileDescriptorSet) -> None:
    # Whatever is imported comes first.
    for imported in file.dependencies:
        _add(imported, files)
    if file.name not in {added.name for added in files.file}:
        file.CopyToProto(files.file.add())
