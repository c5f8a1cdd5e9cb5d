"""How much the doors cost: ratios of things measured in turn within one run."""
