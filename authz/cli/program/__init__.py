"""Runs commands: which there are, what they need, and how their options are read."""
