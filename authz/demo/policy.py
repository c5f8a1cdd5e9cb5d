"""The policy of the demonstration: what the ledger's ``.proto`` asks for, and a file beside it."""

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
    # No .proto asks for the scopes of plain HTTP requests.
    "allow_rules": [{"name": "bookkeepers", "source": {"scopes": ["ledger:write"]}}],
}


def ledger_descriptors() -> bytes:
    """Return the ledger's descriptor set, as buf writes it, but without ``introspect``.

    If the issuer had to be asked, callers could not be admitted while it is down, which the demonstration shows.
    """
    files = FileDescriptorSet()
    _add(ledger_pb2.DESCRIPTOR, files)
    [service] = files.file[-1].service
    for method in service.method:
        method.options.Extensions[policy_pb2.access].ClearField("introspect")
    return files.SerializeToString()


def write_policy(path: Path, more: Mapping[str, Any]) -> None:
    """Replace the policy file in one step.

    Args:
        path: its path.
        more: what it says in addition to the rules, such as ``organizations``.

    """
    new = path.with_name(f"new-{path.name}")
    new.write_text(json.dumps({**_POLICY, **more}, indent=2), encoding="utf-8")
    new.replace(path)


def _add(file: FileDescriptor, files: FileDescriptorSet) -> None:
    # Imported files come first.
    for imported in file.dependencies:
        _add(imported, files)
    if file.name not in {added.name for added in files.file}:
        file.CopyToProto(files.file.add())
