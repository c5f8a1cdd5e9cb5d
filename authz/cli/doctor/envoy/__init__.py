"""What ``authz doctor`` reads in a configuration of Envoy."""
