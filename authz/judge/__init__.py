"""The verdict on every call, and when open streams end."""
