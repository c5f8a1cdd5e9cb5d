"""The command ``authz serve``: one process or several, and what operators see of them."""
