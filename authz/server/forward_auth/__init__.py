"""The check for proxies that ask over HTTP: nginx, Traefik, Caddy, and Envoy with its HTTP service."""
