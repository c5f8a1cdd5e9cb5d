"""What a door knows of a call, who makes it, and how a refusal is answered."""
