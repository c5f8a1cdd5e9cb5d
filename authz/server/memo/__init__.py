"""How Envoy is told to forget what it remembers of our answers."""
