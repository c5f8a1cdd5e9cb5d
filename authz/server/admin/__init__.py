"""The admin page: decisions, their callers and reasons, and four actions that an operator can take at once."""
