"""Who organizations are, whose they are, and how much they may call."""
