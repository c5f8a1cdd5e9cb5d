"""Addresses, URLs, connections and sockets, and the words for what goes wrong with them."""
