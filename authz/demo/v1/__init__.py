"""The ledger service of the proto package ``authz.demo.v1``, generated from ``protos/``."""
