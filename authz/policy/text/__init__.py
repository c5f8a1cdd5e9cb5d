"""A policy as its file says it."""
