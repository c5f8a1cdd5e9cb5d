"""The command ``authz``.

Exit codes: 0 allowed or done, 1 denied or not confirmed, 2 usage or configuration, 3 cannot decide.
"""

from authz.cli import check, development, envoy_config, orders, policy, serve, tokens, usage  # noqa: F401 - each adds its commands
from authz.cli.app import app, main, run

__all__ = ["app", "main", "run"]
