"""The text of a policy: its language, and how it becomes rules."""
