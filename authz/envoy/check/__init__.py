"""One question of Envoy, from its bytes to those of the answer, whatever serves it."""
