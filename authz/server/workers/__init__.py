"""Several server processes as one: the supervisor, its slots, and the worker in each."""
