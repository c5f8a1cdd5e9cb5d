"""The commands ``authz policy …``."""

from authz.cli.policy import check  # noqa: F401 - which adds all of them
