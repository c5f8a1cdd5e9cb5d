"""How much the doors cost, as ratios of figures measured in turn within one run."""
