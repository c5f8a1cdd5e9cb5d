"""Finds and reads the policies of ``authz policy``: in files and folders, in ``.proto`` files, or in both."""

import re
from collections.abc import Iterable
from pathlib import Path

from authz.call.metadata import TrustedMetadata
from authz.errors import ConfigError
from authz.policy import Policy

NAMES = re.compile(r"([\w.-]*[._-])?policy\.(ya?ml|json)")
"""The names of policy files in a folder: ``policy.yaml``, ``orders-policy.json`` and the like."""

_TESTS = re.compile(r"(?<=.)\.test(?=\.\w+$)")


def policy_of(file: Path | None, descriptors: Path | None) -> Policy:
    """Return the policy of a file, of a descriptor set, or of both together.

    Raises:
        ConfigError: neither is given, or something in them is wrong.

    """
    if file is not None and file.is_dir():
        raise ConfigError(f"{file}: no policy in it: no file like policy.yaml, orders-policy.yaml or policy.json")
    if descriptors is not None:
        policy = Policy.from_descriptors(descriptors, file)
    elif file is not None:
        policy = Policy.from_file(file)
    else:
        raise ConfigError("policy: missing; give a policy file, --descriptors api.binpb, or both")
    policy.check_headers(TrustedMetadata().reserved)
    return policy


def files_of(paths: Iterable[Path]) -> list[Path | None]:
    """Return the policy files that ``paths`` name, each once, in order; without any, the one that is no file.

    Args:
        paths: policy files; files of tests, for the policies beside them; and folders, for all the policies in them
            and below. A folder without any stands for itself, which is none.

    """
    found = [file for path in paths for file in (_below(path) if path.is_dir() else [_tested_by(path)])]
    return list(dict.fromkeys(found)) or [None]


def _tested_by(path: Path) -> Path:
    return path.with_name(_TESTS.sub("", path.name))


def _below(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*policy.*") if NAMES.fullmatch(path.name) and path.is_file())
    # A hidden folder holds copies, such as those of git and of environments.
    visible = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return visible or [folder]
