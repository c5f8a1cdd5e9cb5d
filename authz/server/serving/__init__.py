"""The server itself: its engines, what they bound, and whether it is fit to decide."""
