"""The command ``authz``.

Exit codes: 0 allowed or done, 1 denied or not confirmed, 2 usage or configuration, 3 cannot decide.
"""

from authz.cli.app import app, main, run

__all__ = ["app", "main", "run"]

# Where each command is. A module is imported when its command is used, because all of them take a while to load.
for _command in (
    "check:check",
    "development:issuer",
    "development:demo",
    "development:protos",
    "development:schema",
    "envoy_config:envoy_config",
    "orders.giving:revoke",
    "orders.giving:reinstate",
    "orders.giving:suspend",
    "orders.giving:resume",
    "orders.listing:orders",
    "orders.replicas:replicas",
    "tokens:token",
    "verify:verify",
    "policy:policy",
    "serve:serve",
    "usage:usage",
):
    app.command(f"authz.cli.{_command}")
