"""The verdict on every call, and what becomes of open streams."""
