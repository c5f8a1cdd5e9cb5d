"""What a policy decides about a call and why, about test cases in a file, and about logged decisions."""
