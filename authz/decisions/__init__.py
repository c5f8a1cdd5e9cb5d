"""What was decided, and who is told."""
