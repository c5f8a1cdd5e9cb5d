"""Envoy's access log service: what Envoy tells afterwards of the calls whose answers it has repeated."""
