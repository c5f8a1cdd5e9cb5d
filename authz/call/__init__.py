"""What a door knows of a call, who calls, and what is said back."""
