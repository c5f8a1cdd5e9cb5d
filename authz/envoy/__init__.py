"""The door of Envoy: an external authorization server (ext_authz v3)."""
