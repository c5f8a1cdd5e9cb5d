"""Commands that need no extra of the package and start fast: each a module with ``parser`` and ``run``."""
