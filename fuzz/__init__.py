"""Coverage-guided fuzzing: odd tokens, key sets and requests, and what may never come of them."""
