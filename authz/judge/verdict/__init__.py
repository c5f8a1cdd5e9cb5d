"""The steps to a verdict, and what a route asks for."""
