"""The command ``authz``.

Exit codes: 0 allowed or done, 1 denied or not confirmed, 2 usage or configuration, 3 cannot decide.
"""

from authz.cli.program.running import main, run

__all__ = ["main", "run"]
