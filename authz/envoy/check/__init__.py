"""One question from Envoy, from its bytes to the bytes of the answer, for any server."""
