"""A development issuer, a backend, and the demo that ties them to a real Envoy."""
