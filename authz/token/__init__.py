"""What is written in a token, and whether its signature holds: pure functions."""
