"""Orders of the operator: what each says, which of several counts, and where they are kept."""
