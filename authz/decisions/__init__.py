"""What was decided, and where decisions are recorded."""
