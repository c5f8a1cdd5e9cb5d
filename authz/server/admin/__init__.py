"""The admin page: what is decided, for whom and why, and the four things that an operator may do at once."""
