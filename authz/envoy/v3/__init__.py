"""The messages of the proto package ``authz.envoy.v3``, generated from ``protos/``."""
