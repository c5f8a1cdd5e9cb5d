"""A development issuer, a backend, and a demonstration of both with a real Envoy."""
