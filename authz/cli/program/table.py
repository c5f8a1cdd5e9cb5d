"""Which commands there are: where each is, and what it needs."""

from collections.abc import Iterator, Mapping

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "Run": ("serve:serve", "doctor.command:doctor", "healthcheck", "check:check", "envoy_config:envoy_config"),
    "Tokens": ("verify:verify", "token"),
    "Policy": ("policy:policy",),
    "Orders and usage": (
        *("orders.giving:suspend", "orders.giving:resume", "orders.giving:revoke", "orders.giving:reinstate"),
        *("orders.listing:orders", "orders.replicas:replicas", "usage:usage"),
    ),
    "Development": (
        *("development:issuer", "development:demo", "development:schema", "protos"),
        "program.completion:completion",
    ),
}
"""Where each command is, in the groups and the order of ``--help``.

A module is imported when its command is used, because all of them take a while to load.
"""

PLAIN = ("healthcheck", "protos", "token")
"""Commands that need no extra and start fast: modules of :mod:`authz.cli.plain`, with options by argparse."""

EXTRAS: Mapping[str, str] = {
    **dict.fromkeys(("suspend", "resume", "revoke", "reinstate", "orders", "replicas", "usage"), "server,store"),
    **dict.fromkeys(("issuer", "demo"), "demo"),
}
"""What a command needs, if that is not just the extra ``server``."""


def names() -> Iterator[str]:
    """Yield the name of each command."""
    for specs in COMMANDS.values():
        yield from (spec.rpartition(":")[2].replace("_", "-") for spec in specs)
