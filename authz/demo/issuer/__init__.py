"""An issuer for development and the demonstration: ``authz issuer``."""
