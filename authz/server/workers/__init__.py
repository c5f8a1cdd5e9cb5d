"""Several server processes as one: the supervisor, its places, and the workers in them."""
