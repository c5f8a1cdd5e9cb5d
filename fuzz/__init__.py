"""Coverage-guided fuzzing with odd tokens, key sets and requests, and the results that they must never have."""
