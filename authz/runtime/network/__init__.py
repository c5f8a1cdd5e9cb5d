"""Addresses, URLs, connections and sockets, and the words for their failures."""
