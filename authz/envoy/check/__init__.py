"""One check: Envoy's question read, decided, and answered, without any I/O."""
