"""Reads the policy of ``authz policy``: from a file, from ``.proto`` files, or from both."""

from pathlib import Path

from authz.call.metadata import TrustedMetadata
from authz.errors import ConfigError
from authz.policy import Policy


def policy_of(file: Path | None, descriptors: Path | None) -> Policy:
    """Return the policy of a file, of a descriptor set, or of both together.

    Raises:
        ConfigError: neither is given, or something in them is wrong.

    """
    if descriptors is not None:
        policy = Policy.from_descriptors(descriptors, file)
    elif file is not None:
        policy = Policy.from_file(file)
    else:
        raise ConfigError("policy: missing; give a policy file, --descriptors api.binpb, or both")
    policy.check_headers(TrustedMetadata().reserved)
    return policy
