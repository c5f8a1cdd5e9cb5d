"""Who organizations are, which issuer they belong to, and how much they may call."""
