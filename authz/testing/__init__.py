"""For the tests of programs that use this package: callers without tokens, and an issuer without a network.

It works only where pytest or unittest runs the program, unless the program is told otherwise (:func:`allow`).

Every name is imported when it is first used (PEP 562), so that the plugin for pytest takes no time to load.
"""

import importlib
import typing

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

_MODULES = {
    "Acting": "authz.testing.acting",
    "Issuer": "authz.testing.issuer",
    "PolicyCase": "authz.testing.policies",
    "RunningIssuer": "authz.testing.running",
    "acting_as": "authz.testing.acting",
    "allow": "authz.testing.guard",
    "anonymous": "authz.testing.acting",
    "policy_cases": "authz.testing.policies",
    "running_issuer": "authz.testing.running",
    "trusted_metadata": "authz.testing.acting",
}


def __getattr__(name: str) -> typing.Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return __all__
