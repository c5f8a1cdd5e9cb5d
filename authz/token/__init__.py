"""What a token says, and whether its signature is valid: pure functions."""
