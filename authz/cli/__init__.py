"""The command ``authz``.

Exit codes: 0 allowed or done, 1 denied or not confirmed, 2 usage or configuration, 3 cannot decide.
"""

from authz.cli import (  # noqa: F401 - each adds its commands
    check,
    development,
    envoy_config,
    order_list,
    orders,
    policy,
    replicas,
    serve,
    tokens,
)
from authz.cli.app import app, main, run

__all__ = ["app", "main", "run"]
