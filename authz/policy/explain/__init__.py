"""What a policy says of a call and why, of cases in a file, and of decisions that were logged."""
