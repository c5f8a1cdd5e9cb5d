"""Where the server listens: addresses, Unix sockets, its certificate."""
