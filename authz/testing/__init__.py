"""For the tests of programs that use this package: callers without tokens, and an issuer without a network.

It works only where pytest or unittest runs the program, unless the program is told otherwise (:func:`allow`).

Every name is imported when it is first used (PEP 562), so that the plugin for pytest takes no time to load.
"""

import typing

from authz.lazy import lazy_names as _lazy_names

if typing.TYPE_CHECKING:
    from authz.testing.acting import Acting, acting_as, anonymous, trusted_metadata
    from authz.testing.guard import allow
    from authz.testing.issuer import Issuer
    from authz.testing.policies import PolicyCase, policy_cases
    from authz.testing.running import RunningIssuer, running_issuer

__all__ = [
    "Acting",
    "Issuer",
    "PolicyCase",
    "RunningIssuer",
    "acting_as",
    "allow",
    "anonymous",
    "policy_cases",
    "running_issuer",
    "trusted_metadata",
]

if not typing.TYPE_CHECKING:
    __getattr__, __dir__ = _lazy_names(
        __name__,
        {
            ".acting": (
                "Acting",
                "acting_as",
                "anonymous",
                "trusted_metadata",
            ),
            ".guard": ("allow",),
            ".issuer": ("Issuer",),
            ".policies": (
                "PolicyCase",
                "policy_cases",
            ),
            ".running": (
                "RunningIssuer",
                "running_issuer",
            ),
        },
    )
