"""The messages of the proto package ``authz.v1``, generated from ``protos/``."""
